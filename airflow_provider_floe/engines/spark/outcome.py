"""Spark's errors in our words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    EngineFailed,
    EngineUnavailable,
    FloeError,
    RetentionRefused,
    UnsupportedSetting,
)

_LONGEST = 600

_KNOWN: tuple[tuple[tuple[str, ...], type[FloeError], str], ...] = (
    (("CommitStateUnknownException",), CommitOutcomeUnknown, "the catalog did not say whether the commit happened"),
    (
        ("CommitFailedException", "ValidationException", "Cannot commit rewrite"),
        CommitConflict,
        "a concurrent commit won, try again later",
    ),
    (("Still referenced by refs",), RetentionRefused, "a branch or tag was put on a snapshot meanwhile"),
    (
        ("Cannot use options", "Unknown argument", "UNRECOGNIZED_PARAMETER_NAME", "NoSuchProcedure", "Procedure"),
        UnsupportedSetting,
        "its Iceberg runtime does not know what the policy asks for: upgrade it, or take the setting out",
    ),
    (
        ("NotAuthorizedException", "ForbiddenException", "AccessDenied", "InvalidAccessKeyId", "status code: 403"),
        ConfigurationError,
        "check the credentials of the catalog and its storage in Spark's configuration",
    ),
    (
        ("ConnectException", "UnknownHostException", "ServiceUnavailableException", "Connection refused", "timed out"),
        EngineUnavailable,
        "check that the catalog and its storage can be reached from Spark",
    ),
    (
        ("NoSuchTableException", "NoSuchNamespaceException", "TABLE_OR_VIEW_NOT_FOUND"),
        ConfigurationError,
        "check that Spark's catalog is the one that the policy means (floe_catalogs of the connection)",
    ),
    (("ParseException", "AnalysisException"), ConfigurationError, "check filter, sortOrder and zOrderColumns"),
)


def cannot_load(connection: str, table: Sequence[str]) -> ConfigurationError:
    """The error of a job that does not find its table.

    :param table: by Spark's names.
    """
    return ConfigurationError(
        f"Spark of connection {connection!r} cannot load {'.'.join(table)}: check that its configuration has that "
        "catalog, with the same server, credentials and storage, and how the connection maps catalog names "
        "(floe_catalogs)"
    )


def translated(error: Mapping[str, str], connection: str) -> FloeError:
    """The error to raise for one of Spark's.

    :param error: ``type``, the name of its class, and ``message``.
    """
    text = f"{error['type']}: {error['message']}"
    shown = text.split("\n\tat ")[0].strip()
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."
    for marks, kind, advice in _KNOWN:
        if any(mark in text for mark in marks):
            return kind(f"Spark of connection {connection!r}: {advice}. It said: {shown}")
    return EngineFailed(f"Spark of connection {connection!r} failed: {shown}")
