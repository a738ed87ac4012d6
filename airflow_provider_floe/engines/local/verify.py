"""Checks, before a commit, that new files hold what the files they replace hold (promise 15)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import PrimitiveType

from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.column_metrics import ColumnMetrics, column_metrics
from airflow_provider_floe.iceberg.file_groups import FileGroup
from airflow_provider_floe.iceberg.manifests import read_ahead


@dataclass
class Expectation:
    """What the manifests say of a group's files, summed up.

    :ivar partition: the partition tuple, typed as pyiceberg writes it.
    :ivar nulls: null counts by field id, of the columns for which every file has one.
    :ivar bounds: smallest and largest value by field id, of the columns for which every file with values has bounds.
    """

    partition: Record = field(default_factory=Record)
    files: int = 0
    rows: int = 0
    nulls: dict[int, int] = field(default_factory=dict)
    bounds: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    _unknown: set[int] = field(default_factory=set)
    _last_ends: dict[int, tuple[bytes | None, bytes | None]] = field(default_factory=dict)

    def add(self, file: DataFile, schema: Schema) -> None:
        """Count one file in."""
        self.partition = file.partition
        nulls, values = dict(file.null_value_counts or {}), dict(file.value_counts or {})
        self._count(file.record_count, nulls, values, file.lower_bounds or {}, file.upper_bounds or {}, schema)

    def add_metrics(self, file: ColumnMetrics, schema: Schema) -> None:
        """Count one file in that was read from its manifest in part."""
        if not self.files:
            self.partition = Record(*file.partition)
        self._count(file.records, file.nulls, file.values, file.lower, file.upper, schema)

    def _count(
        self,
        records: int,
        nulls: Mapping[int, int],
        values: Mapping[int, int],
        lower: Mapping[int, bytes],
        upper: Mapping[int, bytes],
        schema: Schema,
    ) -> None:
        if self.files == 0:
            self.nulls = dict.fromkeys(nulls, 0)
        self.nulls = {one: count + nulls[one] for one, count in self.nulls.items() if one in nulls}
        for column in schema.fields:
            one, kind = column.field_id, column.field_type
            if not isinstance(kind, PrimitiveType) or (one in nulls and nulls[one] == values.get(one)):
                continue
            ends = lower.get(one), upper.get(one)
            if self._last_ends.get(one) == ends:  # of few values the bounds are the same in most files
                continue
            self._last_ends[one] = ends
            try:
                low: Any = from_bytes(kind, lower[one])
                high: Any = from_bytes(kind, upper[one])
                known = self.bounds.get(one, (low, high))
                self.bounds[one] = (min(known[0], low), max(known[1], high))
            except Exception:  # no bounds, or those of a type since promoted
                self._unknown.add(one)
        self.files += 1
        self.rows += records

    @property
    def known_bounds(self) -> dict[int, tuple[Any, Any]]:
        """Bounds that hold for the whole group."""
        return {one: bounds for one, bounds in self.bounds.items() if one not in self._unknown}


def expectations(
    io: FileIO, manifests: Sequence[ManifestFile], groups: Sequence[FileGroup], schema: Schema
) -> list[Expectation]:
    """What the manifests say of each group; each manifest is read once.

    :raises VerificationFailed: when a group's file is not in its manifest.
    """
    wanted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for number, group in enumerate(groups):
        for file in group.files:
            wanted[file.manifest_path][file.path] = number
    found = [Expectation() for _ in groups]
    for manifest, data in read_ahead(io, [one for one in manifests if one.manifest_path in wanted]):
        paths = wanted[manifest.manifest_path]
        for metrics in column_metrics(manifest, data, paths):
            found[paths[metrics.path]].add_metrics(metrics, schema)
    for expectation, group in zip(found, groups, strict=True):
        if expectation.files != len(group.files):
            raise VerificationFailed(
                f"{expectation.files} of {len(group.files)} files of a group stand in their manifests, for example "
                f"{group.files[0].path}: nothing was written"
            )
    return found


def verify_group(
    io: FileIO,
    schema: Schema,
    expected: Expectation,
    deleted_rows: int,
    written: Sequence[DataFile],
    spec_id: int,
) -> None:
    """Hold the written files against what was read.

    :param deleted_rows: rows that deletes remove, counted independently of the reader.
    :raises VerificationFailed: naming the number that differs; nothing may be committed then.
    """
    rows = sum(file.record_count for file in written)
    if rows != expected.rows - deleted_rows:
        raise VerificationFailed(
            f"{rows:,} rows were written, but {expected.rows:,} rows less {deleted_rows:,} deleted ones were to be: "
            "nothing was committed"
        )
    verify_stored(io, written, spec_id)
    _verify_nulls(schema, expected.nulls, deleted_rows, written)
    for column in schema.fields:
        bounds = expected.known_bounds.get(column.field_id)
        if bounds is not None:
            _verify_bounds(column.name, column.field_type, bounds, written, column.field_id)


def verify_stored(io: FileIO, written: Sequence[DataFile], spec_id: int) -> None:
    """Whether the files are there, as long as they were written.

    :raises VerificationFailed: naming the file; nothing may be committed then.
    """
    for file in written:
        length = len(io.new_input(file.file_path))
        if length != file.file_size_in_bytes or file.spec_id != spec_id:
            raise VerificationFailed(
                f"{file.file_path} has {length} bytes under spec {file.spec_id}, but {file.file_size_in_bytes} bytes "
                f"under spec {spec_id} were written: nothing was committed"
            )


def _verify_nulls(schema: Schema, nulls: Mapping[int, int], deleted_rows: int, written: Sequence[DataFile]) -> None:
    for column in schema.fields:
        one = column.field_id
        counts = [dict(file.null_value_counts or {}).get(one) for file in written]
        if one not in nulls or None in counts or not column.field_type.is_primitive:
            continue
        count = sum(count for count in counts if count is not None)
        if not nulls[one] - deleted_rows <= count <= nulls[one]:
            raise VerificationFailed(
                f"column {column.name} has {count:,} nulls after the rewrite and {nulls[one]:,} before "
                f"({deleted_rows:,} rows are deleted): nothing was committed"
            )


def _verify_bounds(name: str, kind: Any, bounds: tuple[Any, Any], written: Iterable[DataFile], field_id: int) -> None:
    for file in written:
        lower, upper = dict(file.lower_bounds or {}).get(field_id), dict(file.upper_bounds or {}).get(field_id)
        if lower is None or upper is None:
            continue
        low: Any = from_bytes(kind, lower)
        high: Any = from_bytes(kind, upper)
        if isinstance(low, str | bytes):
            # Bounds are cut to the table's length, lower ones as they are, upper ones with the last place raised.
            inside = low >= bounds[0][: len(low)] and high[:-1] <= bounds[1][: len(high) - 1]
        else:
            inside = not (low < bounds[0] or high > bounds[1])
        if not inside:
            raise VerificationFailed(
                f"column {name} of {file.file_path} spans {low!r} to {high!r}, outside {bounds[0]!r} to {bounds[1]!r} "
                "of the files it replaces: nothing was committed"
            )
