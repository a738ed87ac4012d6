"""Commits one ``replace`` snapshot to branch main: optimistic, validated anew on every attempt, never guessed at.

Any exception from the catalog other than a definite refusal means that the outcome is unknown. Then the table is
loaded again and our snapshot looked for; files of a commit that may have happened are never deleted.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    ForbiddenError,
    NoSuchTableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from pyiceberg.manifest import ManifestContent, ManifestFile, ManifestWriter
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, ancestors_of
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, AssertTableUUID, SetSnapshotRefUpdate

from airflow_provider_floe import __version__
from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY, OperationContext
from airflow_provider_floe.engines.local.pyiceberg_commit import commit_table
from airflow_provider_floe.engines.local.pyiceberg_lists import next_row_id, write_list
from airflow_provider_floe.engines.local.pyiceberg_manifests import manifest_writer
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    ConfigurationError,
    FloeError,
    TableNotFound,
    UnsupportedTableFeature,
)
from airflow_provider_floe.iceberg.manifests import snapshot_manifests

log = logging.getLogger(__name__)

_LOOKS = 3
"""How often the table is loaded to look for a snapshot of unknown fate."""


class FilesConflict(CommitConflict):
    """A concurrent commit removed, or put deletes on, files that were to be replaced.

    :ivar paths: those files, or some of them.
    :ivar groups: numbers of the file groups that they are of, where data files were to be replaced.
    """

    def __init__(self, message: str, paths: frozenset[str], groups: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.paths = paths
        self.groups = groups


@dataclass(frozen=True)
class Attempt:
    """One attempt on one head: what it replaces, and the metadata files it writes."""

    context: OperationContext
    table: Table
    head: Snapshot
    manifests: tuple[ManifestFile, ...]
    snapshot_id: int
    written: list[str] = field(default_factory=list)
    _uuid: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def detail(self) -> dict[str, int]:
        """What the operation record keeps of a commit."""
        return {"snapshot_id": self.snapshot_id, "parent_snapshot_id": self.head.snapshot_id}

    def writer(self, content: ManifestContent, spec_id: int) -> ManifestWriter:
        """A writer of a new manifest, which is written ahead in the journal."""
        output = self.table.io.new_output(self.new_manifest_path())
        return manifest_writer(self.table.metadata, content, spec_id, output, self.snapshot_id)

    def new_manifest_path(self) -> str:
        """Where the next manifest goes; it is written ahead in the journal."""
        return self._new_path(f"{self._uuid}-m{len(self.written)}.avro")

    def write_list(self, manifests: Sequence[ManifestFile]) -> tuple[str, int]:
        """Write the snapshot's manifest list; returns its path, and how many row ids the snapshot takes."""
        path = self._new_path(f"snap-{self.snapshot_id}-0-{self._uuid}.avro")
        row_ids = write_list(
            self.table.io,
            self.table.metadata,
            self.table.io.new_output(path),
            manifests,
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=self.head.snapshot_id,
            sequence_number=self.table.metadata.next_sequence_number(),
        )
        return path, row_ids

    def discard(self) -> None:
        """Delete the metadata files of an attempt that certainly did not commit."""
        delete_quietly(self.table, self.written)

    def _new_path(self, name: str) -> str:
        path = self.table.location_provider().new_metadata_location(name)
        self.context.journal.record_outputs([path])
        self.written.append(path)
        return path


@dataclass(frozen=True)
class Change:
    """What an attempt wants committed: the manifests of the new snapshot, and its summary."""

    manifests: Sequence[ManifestFile]
    summary: Mapping[str, str]


@dataclass(frozen=True)
class Committed:
    """A commit that the catalog has acknowledged, or that was found in the table."""

    table: Table
    snapshot_id: int
    parent_snapshot_id: int


def commit_replace(
    context: OperationContext,
    operation_id: str,
    base_snapshot_id: int,
    build: Callable[[Attempt], Change],
    snapshot_id: int | None = None,
) -> Committed:
    """Commit what ``build`` makes of the current head, again on each new head while the catalog refuses.

    :param base_snapshot_id: the snapshot that was read; it must still be in the history of main.
    :param snapshot_id: id of the new snapshot, where manifests that bear it are written already.
    :param build: validates against ``attempt.head`` and writes manifests; raises :class:`CommitConflict`.
    :raises CommitConflict: nothing was changed, and this attempt's own files are gone.
    :raises CommitOutcomeUnknown: the commit may have happened; nothing was deleted.
    """
    refused: Attempt | None = None
    why: Exception | None = None
    number = 0
    while True:
        table = _load(context, refused)
        if refused is not None:
            if table.metadata.snapshot_by_id(refused.snapshot_id) is not None:
                # A transport that repeats a request whose answer was lost gets a refusal for what has happened.
                return _acknowledge(context, refused)
            refused.discard()
            wait_or_give_up(table, number, why)
        context.checkpoint()
        number += 1
        snapshot_id = snapshot_id or table.metadata.new_snapshot_id()
        attempt = _new_attempt(context, table, base_snapshot_id, snapshot_id)
        try:
            snapshot = _snapshot(attempt, build(attempt), operation_id)
            context.checkpoint()
            context.committing(attempt.detail)
        except Exception:
            attempt.discard()
            raise
        try:
            _send(attempt, snapshot)
        except Exception as error:
            if not _was_refused(context, attempt, error):
                return _acknowledge(context, attempt)
            log.info("%s: commit %s was refused: %s", ".".join(table.name()), number, error)
            refused, why = attempt, error
        else:
            return _acknowledge(context, attempt)


def _was_refused(context: OperationContext, attempt: Attempt, error: Exception) -> bool:
    """Whether the commit did not happen and may be tried again; False when it happened in spite of the error.

    :raises ConfigurationError: or TableNotFound, when it cannot happen.
    :raises CommitOutcomeUnknown: when it may have happened.
    """
    table = attempt.table
    if isinstance(error, CommitFailedException | TooManyRequestsError):
        return True
    if isinstance(error, NoSuchTableError | UnsupportedTableFeature):
        attempt.discard()
        raise refusal(table, error) from error
    if isinstance(error, BadRequestError | UnauthorizedError | ForbiddenError):
        # a transport repeats requests: one that is denied after its token ran out may have been heard the first time
        now = _load(context, attempt).metadata
        if now.snapshot_by_id(attempt.snapshot_id) is not None:
            return False
        if now.next_sequence_number() != table.metadata.next_sequence_number():
            return True  # some servers call it a bad request that a commit to another branch came first
        attempt.discard()
        raise refusal(table, error) from error
    if not _landed(context, attempt.snapshot_id):
        raise CommitOutcomeUnknown(
            f"{'.'.join(table.name())}: the catalog did not say whether snapshot {attempt.snapshot_id} was "
            f"committed ({type(error).__name__}: {error}), and it is not in the table now; its files stay"
        ) from error
    return False


def delete_quietly(table: Table, paths: Sequence[str]) -> None:
    """Delete own files that nothing references; what cannot be deleted is left to orphan removal."""
    for path in paths:
        try:
            table.io.delete(path)
        except FileNotFoundError:
            continue
        except Exception as error:
            log.warning("%s was not committed and could not be deleted: %s", path, error)


def _new_attempt(context: OperationContext, table: Table, base_snapshot_id: int, snapshot_id: int) -> Attempt:
    head = table.metadata.snapshot_by_name(MAIN_BRANCH)
    if head is None or all(one.snapshot_id != base_snapshot_id for one in ancestors_of(head, table.metadata)):
        raise CommitConflict(
            f"{'.'.join(table.name())}: snapshot {base_snapshot_id}, which was read, is no longer in the history of "
            "main (rolled back, or expired); nothing was changed"
        )
    manifests = tuple(snapshot_manifests(table, head.snapshot_id))
    return Attempt(context, table, head, manifests, snapshot_id)


def _snapshot(attempt: Attempt, change: Change, operation_id: str) -> Snapshot:
    summary = {
        **change.summary,
        OPERATION_ID_PROPERTY: operation_id,
        "engine-name": "airflow-provider-floe",
        "engine-version": __version__,
    }
    metadata = attempt.table.metadata
    manifest_list, row_ids = attempt.write_list(change.manifests)
    lineage = {"first_row_id": next_row_id(metadata), "added_rows": row_ids} if metadata.format_version >= 3 else {}
    return Snapshot(
        snapshot_id=attempt.snapshot_id,
        parent_snapshot_id=attempt.head.snapshot_id,
        sequence_number=metadata.next_sequence_number(),
        manifest_list=manifest_list,
        summary=Summary(Operation.REPLACE, **summary),
        schema_id=metadata.current_schema_id,
        **lineage,
    )


def _send(attempt: Attempt, snapshot: Snapshot) -> None:
    table = attempt.table
    main = table.metadata.refs[MAIN_BRANCH]
    updates = (
        AddSnapshotUpdate(snapshot=snapshot),
        SetSnapshotRefUpdate(
            ref_name=MAIN_BRANCH,
            type=SnapshotRefType.BRANCH,
            snapshot_id=snapshot.snapshot_id,
            max_ref_age_ms=main.max_ref_age_ms,
            max_snapshot_age_ms=main.max_snapshot_age_ms,
            min_snapshots_to_keep=main.min_snapshots_to_keep,
        ),
    )
    requirements = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=attempt.head.snapshot_id),
    )
    commit_table(table, requirements, updates)


def _load(context: OperationContext, refused: Attempt | None) -> Table:
    try:
        return context.load_table()
    except Exception as error:
        if refused is None:
            raise
        raise CommitOutcomeUnknown(
            f"the catalog refused snapshot {refused.snapshot_id}, but loading the table to make sure failed: {error}"
        ) from error


def _landed(context: OperationContext, snapshot_id: int) -> bool:
    """Whether the table holds the snapshot."""
    for turn in range(_LOOKS):
        try:
            if context.load_table().metadata.snapshot_by_id(snapshot_id) is not None:
                return True
        except Exception as error:
            log.warning("looking for snapshot %s failed: %s", snapshot_id, error)
        if turn < _LOOKS - 1:
            time.sleep(0.1 * 2**turn)
    return False


def _acknowledge(context: OperationContext, attempt: Attempt) -> Committed:
    try:
        context.committed(attempt.detail)
        table = context.load_table()
    except Exception as error:
        raise CommitOutcomeUnknown(
            f"{'.'.join(attempt.table.name())}: snapshot {attempt.snapshot_id} was committed, but that could not be "
            f"recorded: {error}"
        ) from error
    return Committed(table, attempt.snapshot_id, attempt.head.snapshot_id)


def wait_or_give_up(table: Table, number: int, why: Exception | None = None) -> None:
    """Back off after refused attempt ``number``, by the table's ``commit.retry.*`` properties.

    :param why: the catalog's words.
    :raises CommitConflict: after the last attempt.
    """
    properties = table.metadata.properties
    if number > int(properties.get("commit.retry.num-retries", 4)):
        told = f" (the last one: {why})" if why is not None else ""
        raise CommitConflict(
            f"{'.'.join(table.name())}: the catalog refused {number} commits in a row because others came first{told}; "
            "nothing was changed. Run again when there are fewer writers, or raise the table's commit.retry.num-retries"
        )
    least = int(properties.get("commit.retry.min-wait-ms", 100))
    most = int(properties.get("commit.retry.max-wait-ms", 60_000))
    time.sleep(min(most, least * 2 ** (number - 1)) * random.uniform(0.5, 1.0) / 1000)


def refusal(table: Table, error: Exception) -> FloeError:
    """What to raise for an answer of the catalog that rules the commit out: nothing was changed."""
    name = ".".join(table.name())
    if isinstance(error, UnsupportedTableFeature):
        return error
    if isinstance(error, NoSuchTableError):
        return TableNotFound(f"{name}: the table vanished before the commit: {error}")
    return ConfigurationError(
        f"{name}: the catalog refused the commit ({type(error).__name__}: {error}); nothing was changed. "
        "Check that the connection's user may write this table"
    )
