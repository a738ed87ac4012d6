"""Real Iceberg tables in a directory, and an operation context whose time and failures a test controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

from airflow_provider_floe.engines.base import Deletion, OperationRequest, RemoteJob, TableLocation
from airflow_provider_floe.policies.model import OperationSettings
from airflow_provider_floe.tables import Operation, TableRef

NAMESPACE = "db"

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "part", StringType(), required=False),
    NestedField(3, "text", StringType(), required=False),
)
BY_PART = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part"))
FAST_RETRIES = {"commit.retry.min-wait-ms": "1", "commit.retry.max-wait-ms": "5"}


def lake(tmp_path: Path, name: str = "lake") -> SqlCatalog:
    """A catalog on SQLite with its warehouse under ``tmp_path``, and the namespace ``db``."""
    (tmp_path / "warehouse").mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(name, uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace_if_not_exists(NAMESPACE)
    return catalog


def create_table(
    catalog: SqlCatalog,
    name: str = "events",
    *,
    schema: Schema = SCHEMA,
    partitioned: bool = False,
    properties: Mapping[str, str] | None = None,
) -> Table:
    """An empty v2 table ``db.<name>`` with columns id, part, text; ``partitioned`` means by ``part``."""
    merged = {"format-version": "2", **FAST_RETRIES, **(properties or {})}
    spec = BY_PART if partitioned else PartitionSpec()
    return catalog.create_table(f"{NAMESPACE}.{name}", schema=schema, partition_spec=spec, properties=merged)


def rows(start: int, count: int, part: str = "a") -> pa.Table:
    """``count`` rows with ids from ``start``; ``text`` follows from the id."""
    ids = list(range(start, start + count))
    return pa.table(
        {"id": ids, "part": [part] * count, "text": [f"text of row {i}" for i in ids]},
        schema=schema_to_pyarrow(SCHEMA, include_field_ids=False),
    )


def append_files(
    table: Table, files: int, rows_each: int = 10, *, start: int = 0, parts: Sequence[str] = ("a",)
) -> Table:
    """One append, so one data file, per file and partition value; ids go up over all of them."""
    for number in range(files):
        for offset, part in enumerate(parts):
            first = start + (number * len(parts) + offset) * rows_each
            table.append(rows(first, rows_each, part))
    return table


def small_files(
    catalog: SqlCatalog,
    files: int,
    *,
    rows_each: int = 10,
    name: str = "events",
    parts: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """A table with ``files`` small data files, per value of ``parts`` where it is partitioned."""
    table = create_table(catalog, name, partitioned=bool(parts), properties=properties)
    return append_files(table, files, rows_each, parts=parts or ("a",))


def entries(table: Table) -> list[ManifestEntry]:
    """Live entries of the current snapshot, as pyiceberg reads them."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    return [entry for manifest in snapshot.manifests(table.io) for entry in manifest.fetch_manifest_entry(table.io)]


def data_files(table: Table) -> list[DataFile]:
    """Live data files of the current snapshot."""
    return [entry.data_file for entry in entries(table) if entry.data_file.content == DataFileContent.DATA]


def delete_files(table: Table) -> list[DataFile]:
    """Live delete files of the current snapshot."""
    return [entry.data_file for entry in entries(table) if entry.data_file.content != DataFileContent.DATA]


def rows_digest(table: Table, columns: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
    """All rows, sorted, as pyiceberg's own scan reads them. It refuses tables with equality deletes."""
    found = table.scan(selected_fields=tuple(columns) if columns else ("*",)).to_arrow()
    return sorted((tuple(row.values()) for row in found.to_pylist()), key=repr)


def local_path(path: str) -> Path:
    """The local path of a ``file:`` URI."""
    return Path(path.removeprefix("file://").removeprefix("file:"))


def referenced_files(table: Table) -> set[str]:
    """Manifest lists, manifests, data and delete files that any snapshot of the table names."""
    named: set[str] = set()
    for snapshot in table.metadata.snapshots:
        named.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            named.add(manifest.manifest_path)
            named.update(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
    return named


def missing_files(table: Table) -> list[str]:
    """What any snapshot of the table names but storage does not have."""
    return sorted(path for path in referenced_files(table) if not local_path(path).exists())


def stored_files(table: Table) -> set[Path]:
    """Every file below the table's location."""
    return {path for path in local_path(table.location()).rglob("*") if path.is_file()}


def table_ref(table: Table, catalog: str = "lake") -> TableRef:
    """The reference of a table of :func:`lake`."""
    *namespace, name = table.name()
    return TableRef(catalog, tuple(namespace), name)


def request_for(
    table: Table,
    operation: Operation,
    settings: OperationSettings,
    *,
    operation_id: str = "op-1",
    ignored_settings: tuple[str, ...] = (),
) -> OperationRequest:
    """An operation on the table, as a plan would ask for it."""
    return OperationRequest(operation_id, table_ref(table), operation, settings, ignored_settings)


@dataclass
class MemoryJournal:
    """The write-ahead list, in memory."""

    outputs: list[str] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def record_outputs(self, paths: Iterable[str]) -> None:
        self.outputs.extend(paths)

    def record_deletions(self, deletions: Sequence[Deletion]) -> None:
        self.deletions.extend(deletions)

    def mark_deleted(self, paths: Iterable[str]) -> None:
        self.deleted.extend(paths)

    def recorded_deletions(self) -> Sequence[Deletion]:
        return self.deletions


def _nothing(*_: Any) -> None:
    return None


@dataclass
class FakeContext:
    """An operation context with a clock and failures that a test sets.

    :ivar table_loader: gives the table anew at each call.
    :ivar time: what ``now`` answers; move it with :meth:`advance`.
    :ivar on_committing: called with the number of the commit attempt (from 1) right before each commit: a test
        commits something of its own here, or raises.
    :ivar on_checkpoint: called at each checkpoint; raising here is how a run is cancelled or killed.
    :ivar remote_jobs: ids of the jobs elsewhere, in the order of their beginning.
    :ivar jobs: those jobs by id, as last told.
    """

    table_loader: Callable[[], Table]
    time: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    on_committing: Callable[[int], None] = _nothing
    on_checkpoint: Callable[[], None] = _nothing
    others: Sequence[TableLocation] = ()
    dead: Sequence[str] = ()
    commits_begun: list[dict[str, Any]] = field(default_factory=list)
    commits_done: list[dict[str, Any]] = field(default_factory=list)
    progressed: list[tuple[int, int, str]] = field(default_factory=list)
    remote_jobs: list[str] = field(default_factory=list)
    jobs: dict[str, RemoteJob] = field(default_factory=dict)

    def advance(self, by: timedelta) -> None:
        self.time += by

    def now(self) -> datetime:
        return self.time

    def load_table(self) -> Table:
        return self.table_loader()

    def checkpoint(self) -> None:
        self.on_checkpoint()

    def committing(self, detail: Mapping[str, Any]) -> None:
        self.commits_begun.append(dict(detail))
        self.on_committing(len(self.commits_begun))

    def committed(self, detail: Mapping[str, Any]) -> None:
        self.commits_done.append(dict(detail))

    def remote_job(self, job_id: str, *, url: str | None = None, state: Mapping[str, Any] | None = None) -> None:
        known = self.jobs.get(job_id, RemoteJob(id=job_id))
        if job_id not in self.jobs:
            self.remote_jobs.append(job_id)
        told = {} if state is None else {"state": dict(state)}
        self.jobs[job_id] = known.model_copy(update=told if url is None else {**told, "url": url})

    def progress(self, done: int, total: int, unit: str) -> None:
        self.progressed.append((done, total, unit))

    def other_tables(self) -> Sequence[TableLocation]:
        return self.others

    def dead_outputs(self) -> Sequence[str]:
        return self.dead


def context_for(table: Table, **fields: Any) -> FakeContext:
    """A context that loads the table anew from its catalog."""
    return FakeContext(lambda: table.catalog.load_table(table.name()), **fields)
