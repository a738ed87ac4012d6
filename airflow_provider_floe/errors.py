"""Errors that Floe raises: each says what is wrong, where, and what to do next, and knows whether a retry can help."""

from __future__ import annotations

from typing import ClassVar


class FloeError(Exception):
    """Root of all errors of this package.

    :ivar retryable: whether running the same thing again, unchanged, may succeed.
    """

    retryable: ClassVar[bool] = False


class ConfigurationError(FloeError):
    """A setting, connection or argument is wrong; the message names it, its value and the fix."""


class MissingExtra(ConfigurationError):
    """An optional library is not installed.

    :param feature: what the user asked for, for example ``"catalog kind hive"``.
    :param extra: the extra of this package that brings it, for example ``"hive"``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'airflow-provider-floe[{extra}]'")
        self.feature = feature
        self.extra = extra


class InvalidTableReference(ConfigurationError):
    """Text that should name a table does not."""


class PolicyError(FloeError):
    """Something about policies is wrong."""


class InvalidPolicy(PolicyError):
    """A policy document was refused; the message has file, line, field, value and the nearest valid name."""


class PolicyNotFound(PolicyError):
    """No enabled policy governs the table, or no policy has the given name."""


class PolicyDisabled(PolicyError):
    """The policy that was named, or every policy that matches the table, is disabled."""


class PolicyDoesNotMatch(PolicyError):
    """The policy that was named does not match the table."""


class TableNotFound(FloeError):
    """The catalog has no such table."""


class TableUnreadable(FloeError):
    """The table is listed, but its metadata cannot be read."""


class CatalogUnavailable(FloeError):
    """The catalog did not answer; the message names the connection and what to check."""

    retryable = True


class StorageUnavailable(FloeError):
    """Files could not be read, written or deleted: the file system or object store failed."""

    retryable = True


class StoreUnavailable(FloeError):
    """The Floe store did not answer."""

    retryable = True


class EngineUnavailable(FloeError):
    """An engine did not answer, or was lost before it changed anything; the message names the connection."""

    retryable = True


class EngineFailed(FloeError):
    """An engine could not carry an operation out; the message has its own words and the id of its job."""


class UnsupportedSetting(FloeError):
    """An engine cannot honour a setting of the policy; the message names the setting and which engine can."""


class UnsupportedTableFeature(FloeError):
    """An engine cannot work on a table with this feature; the message names the feature and which engine can."""


class UnsafeOperation(FloeError):
    """A safety promise would be broken, so nothing was done (partial listing, empty category, cap exceeded, ...)."""


class UnsafeLocation(UnsafeOperation):
    """The table's location overlaps another table's, or holds another table's metadata."""


class RetentionRefused(UnsafeOperation):
    """The table forbids deletion (``gc.enabled=false``), is encrypted, or asks to keep more than the policy."""


class CommitConflict(FloeError):
    """A concurrent commit made this one impossible; nothing was changed."""

    retryable = True


class CommitOutcomeUnknown(FloeError):
    """The catalog did not say whether the commit happened; nothing may be deleted until that is looked up."""


class VerificationFailed(FloeError):
    """What was written does not hold the rows or files of before; the message says whether it was committed."""


class LeaseLost(FloeError):
    """The table's lease ran out or was taken over; the operation stopped before its next side effect."""

    retryable = True


class LeaseBusy(FloeError):
    """Another run holds the table's lease."""

    retryable = True


class JobTakenOver(LeaseLost):
    """The lease was lost to a run that has taken over our job elsewhere, too: it is no longer ours to cancel."""


class OperationCancelled(FloeError):
    """The operation was cancelled before it committed."""
