"""Writes the rows of a file group under another partition spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.pyiceberg_adapter import split_by_partition
from airflow_provider_floe.engines.local.writer import RollingWriter
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting

MOST_OPEN = 32
"""Files open at a time; the one written to longest ago is finished first."""


class MovingWriter:
    """Splits rows by their partition under the output spec, with a rolling writer for each."""

    def __init__(self, table: Table, spec_id: int, open_writer: Callable[[Record], RollingWriter]) -> None:
        self._table = table
        self._spec_id = spec_id
        self._open_writer = open_writer
        self._open: dict[str, RollingWriter] = {}
        self._files: list[DataFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows of any partition."""
        for partition, rows in split_by_partition(self._table.metadata, self._spec_id, pa.Table.from_batches([batch])):
            key = repr(partition)
            writer = self._open.pop(key, None) or self._open_writer(partition)
            if len(self._open) >= MOST_OPEN:
                self._files += self._open.pop(next(iter(self._open))).close()
            self._open[key] = writer
            for part in rows.to_batches():
                writer.write(part)

    def close(self) -> Iterable[DataFile]:
        """Finish all files; returns them."""
        while self._open:
            self._files += self._open.pop(next(iter(self._open))).close()
        return self._files

    def abandon(self) -> None:
        """Close what is open, as far as that goes."""
        for writer in self._open.values():
            writer.abandon()


def check_output_spec(table: Table, spec_id: int | None) -> None:
    """Whether files can be written under the spec that the settings ask for.

    :raises ConfigurationError: when the table has no such spec.
    :raises UnsupportedSetting: for transforms that this engine does not compute.
    """
    if spec_id is None:
        return
    spec = table.metadata.specs().get(spec_id)
    if spec is None:
        known = ", ".join(str(one) for one in sorted(table.metadata.specs()))
        raise ConfigurationError(f"outputSpecId={spec_id}: {'.'.join(table.name())} has partition specs {known}")
    for field in spec.fields:
        if not isinstance(field.transform, IdentityTransform) or field.source_id not in {
            column.field_id for column in table.schema().fields
        }:
            raise UnsupportedSetting(
                f"setting outputSpecId={spec_id}: the local engine does not compute partition field {field.name} "
                f"({field.transform}): use engine spark"
            )
