"""What a table looks like, measured without this package: pyiceberg's metadata, the file system, DuckDB's reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.oracle import Digest, oracle_digest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import ValidationError
from pyiceberg.table import Table

NAMESPACES = ("web", "sales", "ops.audit", "scratch")


@dataclass(frozen=True)
class TableState:
    """One table at one moment.

    :ivar manifests: those that hold live files; Iceberg drops the others with the next commit.
    :ivar digest: rows and their hash as DuckDB reads them; None for a table that cannot be read.
    """

    name: str
    data_files: int = 0
    average_bytes: int = 0
    delete_files: int = 0
    snapshots: int = 0
    manifests: int = 0
    orphans: int = 0
    snapshot_id: int | None = None
    digest: Digest | None = None


def measure(catalog: SqlCatalog) -> list[TableState]:
    """Every table of the lakehouse."""
    names = [".".join(identifier) for namespace in NAMESPACES for identifier in catalog.list_tables(namespace)]
    return [_measure_table(catalog, name) for name in sorted(names)]


def _measure_table(catalog: SqlCatalog, name: str) -> TableState:
    try:
        table = catalog.load_table(name)
    except ValidationError:
        return TableState(name)
    files = table.inspect.files()
    contents = files.column("content").to_pylist()
    sizes = [
        size for size, kind in zip(files.column("file_size_in_bytes").to_pylist(), contents, strict=True) if not kind
    ]
    return TableState(
        name,
        data_files=len(sizes),
        average_bytes=sum(sizes) // max(len(sizes), 1),
        delete_files=len(contents) - len(sizes),
        snapshots=len(table.metadata.snapshots),
        manifests=_manifests_with_live_files(table),
        orphans=len(unreferenced_files(table)),
        snapshot_id=table.metadata.current_snapshot_id,
        digest=oracle_digest(table.metadata_location),
    )


def _manifests_with_live_files(table: Table) -> int:
    kinds = ("added_data", "existing_data", "added_delete", "existing_delete")
    counts = table.inspect.manifests().select([f"{kind}_files_count" for kind in kinds]).to_pylist()
    return sum(any(row.values()) for row in counts)


def unreferenced_files(table: Table) -> set[Path]:
    """Files under the table's location that no snapshot and no metadata file names."""
    referenced = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    referenced.update(snapshot.manifest_list for snapshot in table.metadata.snapshots)
    referenced.update(table.inspect.all_manifests().column("path").to_pylist())
    referenced.update(table.inspect.all_files().column("file_path").to_pylist())
    stored = {path for path in _local(table.location()).rglob("*") if path.is_file()}
    return stored - {_local(path) for path in referenced}


def _local(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def render(before: Sequence[TableState], after: Sequence[TableState]) -> str:
    """Both states side by side, one line for each table."""
    heads = (
        "table",
        "data files",
        "average size",
        "delete files",
        "snapshots",
        "manifests",
        "orphans",
        "rows (DuckDB)",
    )
    lines = [heads]
    for old, new in zip(before, after, strict=True):
        if old.digest is None:
            lines.append((old.name, "cannot be read", *[""] * (len(heads) - 2)))
            continue
        pairs = (
            (old.data_files, new.data_files),
            (_size(old.average_bytes), _size(new.average_bytes)),
            (old.delete_files, new.delete_files),
            (old.snapshots, new.snapshots),
            (old.manifests, new.manifests),
            (old.orphans, new.orphans),
        )
        same = f"{old.digest.rows:,} same" if old.digest == new.digest else f"{old.digest} became {new.digest}"
        lines.append((old.name, *(f"{a} → {b}" if a != b else f"{a}" for a, b in pairs), same))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} MiB"
