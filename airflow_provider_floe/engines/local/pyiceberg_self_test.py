"""Tries what the engine uses of pyiceberg's private parts, before a table is touched."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyiceberg
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, TableMetadataV3
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField

from airflow_provider_floe.engines.local.pyiceberg_commit import write_metadata
from airflow_provider_floe.engines.local.pyiceberg_lists import write_list
from airflow_provider_floe.engines.local.pyiceberg_manifests import data_file, new_writer, read_entries
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifests import live_files, read_list

_SCHEMA = Schema(NestedField(1, "id", LongType(), required=False))
_SNAPSHOT, _SEQUENCE = 7, 9
_COUNTS: dict[str, Any] = {"record_count": 3, "column_sizes": {}, "value_counts": {}, "null_value_counts": {}}
_COUNTS |= {"nan_value_counts": {}, "lower_bounds": {}, "upper_bounds": {}, "split_offsets": [4]}


class _Memory(OutputFile, InputFile):
    """A file in memory."""

    def __init__(self) -> None:
        super().__init__("memory:file")
        self.content = b""

    def __len__(self) -> int:
        return len(self.content)

    def exists(self) -> bool:
        return True

    def to_input_file(self) -> InputFile:
        return self

    def open(self, seekable: bool = True) -> InputStream:
        return io.BytesIO(self.content)

    def create(self, overwrite: bool = False) -> OutputStream:
        memory = self

        class Stream(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    memory.content = self.getvalue()
                super().close()

        return Stream()


class _MemoryIO(FileIO):
    def __init__(self, file: _Memory) -> None:
        super().__init__()
        self._file = file

    def new_input(self, location: str) -> InputFile:
        return self._file

    def new_output(self, location: str) -> OutputFile:
        return self._file

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError


def self_test() -> None:
    """Write delete manifests, and all metadata of a table of format version 3, and read them back.

    :raises ConfigurationError: naming the pyiceberg that is installed, when it does not behave as needed.
    """
    try:
        problem = next(_problems(), None)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ConfigurationError(
            f"pyiceberg {pyiceberg.__version__} does not behave as the local engine needs ({problem}): "
            "install pyiceberg>=0.12,<0.13"
        )


def _problems() -> Iterator[str]:
    yield from _delete_manifest()
    yield from _version_3()


def _delete_manifest() -> Iterator[str]:
    output, manifest = _manifest(2, ManifestContent.DELETES)
    manifest.sequence_number = _SEQUENCE
    found = [
        (entry.status.name, entry.snapshot_id, entry.sequence_number, entry.file_sequence_number)
        for entry in manifest.fetch_manifest_entry(_MemoryIO(output))
    ]
    if found != [("ADDED", _SNAPSHOT, 5, _SEQUENCE), ("EXISTING", _SNAPSHOT, 6, None)]:
        yield f"manifest entries came back as {found}"
    if manifest.content != ManifestContent.DELETES or b"\x0econtent\x0edeletes" not in output.content:
        yield "a delete manifest is not labelled as one"


def _version_3() -> Iterator[str]:
    output, manifest = _manifest(3, ManifestContent.DATA)
    metadata: TableMetadata = TableMetadataV3(
        location="memory:table",
        schemas=[_SCHEMA],
        last_column_id=1,
        current_schema_id=0,
        partition_specs=[UNPARTITIONED_PARTITION_SPEC],
        default_spec_id=0,
        last_partition_id=999,
        next_row_id=100,
    )
    lists = _Memory()
    taken = write_list(
        _MemoryIO(output),
        metadata,
        lists,
        [manifest],
        snapshot_id=_SNAPSHOT,
        parent_snapshot_id=None,
        sequence_number=_SEQUENCE,
    )
    if taken != 6:
        yield f"a snapshot of 6 rows takes {taken} row ids"
    listed = read_list(lists)
    ids = [entry.data_file[16] for entry in read_entries(_MemoryIO(output), listed[0])]
    if ids != [100, 103] or [file.first_row_id for file in live_files(_MemoryIO(output), listed)] != ids:
        yield f"first row ids came back as {ids}"
    document = _Memory()
    write_metadata(metadata, _MemoryIO(document), "memory:v1.metadata.json")
    if json.loads(document.content).get("next-row-id") != 100 or not hasattr(MetastoreCatalog, "_write_metadata"):
        yield "metadata of format version 3 was not written"


def _manifest(version: int, content: ManifestContent) -> tuple[_Memory, Any]:
    output = _Memory()
    writer = new_writer(version, content, UNPARTITIONED_PARTITION_SPEC, _SCHEMA, output, _SNAPSHOT, "null")
    with writer:
        for number, status in enumerate((ManifestEntryStatus.ADDED, ManifestEntryStatus.EXISTING)):
            file = data_file(f"memory:{number}", Record(), 0, 10, None, **_COUNTS)
            entry = ManifestEntry.from_args(
                status=status,
                snapshot_id=_SNAPSHOT,
                sequence_number=5 + number,
                file_sequence_number=None,
                data_file=file,
            )
            writer.add_entry(entry)
    return output, writer.to_manifest_file()
