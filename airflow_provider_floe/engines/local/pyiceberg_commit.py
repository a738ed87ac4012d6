"""How a commit goes through pyiceberg's catalogs, format version 3 included.

A REST catalog takes updates and writes metadata itself. All others of pyiceberg write the metadata file in this
process, and pyiceberg 0.12 refuses to write one of version 3, although its model holds what that version has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO
from pyiceberg.serializers import Compressor, ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV3
from pyiceberg.table.update import AddSnapshotUpdate, TableRequirement, TableUpdate, ValidatableTableRequirement
from pyiceberg.typedef import IcebergBaseModel

from airflow_provider_floe.engines.local.pyiceberg_lists import next_row_id
from airflow_provider_floe.errors import UnsupportedTableFeature

_ONLY_VERSION_1 = ("schema", "partition-spec")
"""Said again by lists of schemas and specs; an upgrade may leave them."""


def commit_table(table: Table, requirements: Sequence[TableRequirement], updates: Sequence[TableUpdate]) -> None:
    """Commit updates to a table as it was loaded.

    :raises CommitFailedException: when something else was committed first; nothing was changed.
    :raises UnsupportedTableFeature: when this process writes the metadata and would lose something that is in it.
    """
    catalog = table.catalog
    if isinstance(catalog, MetastoreCatalog):
        if table.metadata.format_version >= 3:
            _refuse_losses(table)
            # on this object alone: pyiceberg looks the method up on it
            catalog._write_metadata = write_metadata  # type: ignore[method-assign]
        if any(isinstance(update, AddSnapshotUpdate) for update in updates):
            requirements = (*requirements, _AssertNothingAdded.since(table.metadata))
    catalog.commit_table(table, tuple(requirements), tuple(updates))


def metadata_json(metadata: TableMetadata) -> str:
    """A metadata file's content, of any format version."""
    return IcebergBaseModel.model_dump_json(metadata)


def write_metadata(metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:
    """Write a metadata file as pyiceberg's catalogs do, of any format version."""
    if not isinstance(metadata, TableMetadataV3):
        ToOutputFile.table_metadata(metadata, io.new_output(metadata_path))
        return
    content = metadata_json(metadata).encode()
    with io.new_output(metadata_path).create() as stream:
        stream.write(Compressor.get_compressor(metadata_path).bytes_compressor()(content))


class _AssertNothingAdded(ValidatableTableRequirement):
    """No snapshot came to any branch: its sequence number and row ids would be given twice."""

    type: Literal["floe-assert-nothing-added"] = "floe-assert-nothing-added"
    last_sequence_number: int
    next_row_id: int

    @classmethod
    def since(cls, metadata: TableMetadata) -> Any:
        return cls(last_sequence_number=_last_sequence_number(metadata), next_row_id=next_row_id(metadata))

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]
        if base_metadata is None:
            raise CommitFailedException("the table is gone")
        now = _last_sequence_number(base_metadata), next_row_id(base_metadata)
        if now != (self.last_sequence_number, self.next_row_id):
            raise CommitFailedException(
                f"another snapshot was committed meanwhile: sequence number and next row id are {now}, "
                f"and were {(self.last_sequence_number, self.next_row_id)}"
            )


def _last_sequence_number(metadata: TableMetadata) -> int:
    return getattr(metadata, "last_sequence_number", 0)


def _refuse_losses(table: Table) -> None:
    """Hold what would be written against the metadata file that is there."""
    with table.io.new_input(table.metadata_location).open() as stream:
        content = Compressor.get_compressor(table.metadata_location).stream_decompressor(stream).read()
    before = {key: value for key, value in json.loads(content).items() if key not in _ONLY_VERSION_1}
    lost = sorted(_lost(before, json.loads(metadata_json(table.metadata)), ""))
    if lost:
        raise UnsupportedTableFeature(
            f"{'.'.join(table.name())}: this catalog's metadata is written by the client, and pyiceberg would lose "
            f"{', '.join(lost[:5])} of {table.metadata_location}: use engine spark, or a REST catalog"
        )


def _lost(before: Any, after: Any, where: str) -> Iterator[str]:
    """Places in a JSON document whose values the other one lacks or has otherwise."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from _lost(value, after.get(key), f"{where}.{key}" if where else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _lost(old, new, f"{where}[{number}]")
    elif isinstance(before, str) and isinstance(after, str):
        if before.replace(" ", "") != after.replace(" ", ""):  # as in decimal(9, 2)
            yield where
    elif before != after and before not in (None, [], {}) and (before, after) != (-1, None):
        yield where
