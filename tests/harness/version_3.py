"""Tables of format version 3 without a JVM: row lineage, deletion vectors, and a reader that shares no code with ours.

pyiceberg writes nothing of version 3. Writing goes through the engine's own manifests here, which Spark and Trino read
in tests/services; reading takes Avro, Puffin and Parquet apart by itself.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.file import AvroFile
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    SetSnapshotRefUpdate,
    UpgradeFormatVersionUpdate,
)

from airflow_provider_floe.engines.local.pyiceberg_commit import commit_table, write_metadata
from airflow_provider_floe.engines.local.pyiceberg_lists import next_row_id, write_list
from airflow_provider_floe.engines.local.pyiceberg_manifests import (
    file_key,
    manifest_writer,
    position_delete_file,
    read_entries,
)
from airflow_provider_floe.iceberg.deletion_vectors import PuffinFile, Vector
from airflow_provider_floe.iceberg.manifests import snapshot_manifests

LINEAGE_SCHEMA = (
    pa.field("_row_id", pa.int64(), metadata={b"PARQUET:field_id": b"2147483540"}),
    pa.field("_last_updated_sequence_number", pa.int64(), metadata={b"PARQUET:field_id": b"2147483539"}),
)


def upgrade(table: Table) -> Table:
    """Make a table of an older version one of version 3, as an engine's upgrade does; refreshed.

    A REST catalog does it itself; of others, the metadata file is changed in place, and written by this package's code
    from then on.
    """
    if isinstance(table.catalog, RestCatalog):
        table.catalog.commit_table(table, (), (UpgradeFormatVersionUpdate(format_version=3),))
        return table.refresh()
    table.catalog._write_metadata = write_metadata  # type: ignore[attr-defined]
    with table.io.new_input(table.metadata_location).open() as source:
        metadata = json.loads(source.read())
    with table.io.new_output(table.metadata_location).create(overwrite=True) as target:
        target.write(json.dumps({**metadata, "format-version": 3, "next-row-id": 0}).encode())
    return table.refresh()


def append(table: Table, rows: pa.Table) -> list[DataFile]:
    """Append rows, one file a partition; the table is refreshed."""
    files = list(_dataframe_to_data_files(table.metadata, rows, table.io))
    for file in files:
        file.spec_id = table.spec().spec_id
    commit(table, added=files, operation=Operation.APPEND)
    return files


def add_vectors(table: Table, deletes: Mapping[str, Collection[int]]) -> list[DataFile]:
    """Delete rows by data file path and position, in one commit and one Puffin file; the table is refreshed.

    A data file that has a vector gets a new one in its place, which holds what the old one, or older position deletes,
    hold.
    """
    data = {entry.data_file.file_path: entry.data_file for entry in entries(table) if entry.data_file.content == 0}
    files = live(table)
    old = {one.referenced: one for one in files if one.file_format == "puffin"}
    known = _deleted(table, [file for file in files if file.content < 2])
    vectors = [Vector(path, sorted({*known.get(path, ()), *positions})) for path, positions in deletes.items()]
    puffin = PuffinFile()
    places = [puffin.add(vector) for vector in vectors]
    content = puffin.finished("the tests")
    location = f"{table.location()}/data/{uuid4()}.puffin"
    with table.io.new_output(location).create() as stream:
        stream.write(content)
    added = []
    for vector, place in zip(vectors, places, strict=True):
        owner = data[vector.data_file]
        added.append(
            position_delete_file(
                location,
                FileFormat.PUFFIN,
                owner.partition,
                owner.spec_id,
                len(content),
                len(vector.positions),
                referenced_data_file=vector.data_file,
                content_offset=place.offset,
                content_size_in_bytes=place.length,
            )
        )
    replaced = {f"{old[path].path}#{old[path].offset}" for path in deletes if path in old}
    commit(table, added=added, removed=replaced)
    return added


def commit(
    table: Table,
    *,
    added: Sequence[DataFile] = (),
    removed: Collection[str] = (),
    operation: Operation = Operation.OVERWRITE,
    branch: str | None = "main",
) -> None:
    """Commit files by hand; the table is refreshed.

    :param removed: keys of the files that go.
    :param branch: None stages the snapshot, on top of the main branch.
    """
    metadata = table.metadata
    snapshot_id = metadata.new_snapshot_id()
    head = metadata.snapshot_by_name(branch or "main")
    parent = head.snapshot_id if head else None
    manifests = list(_kept(table, parent, snapshot_id, removed)) + list(_added(table, snapshot_id, added))
    location = f"{table.location()}/metadata/snap-{snapshot_id}.avro"
    row_ids = write_list(
        table.io,
        metadata,
        table.io.new_output(location),
        manifests,
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent,
        sequence_number=metadata.next_sequence_number(),
    )
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent,
        sequence_number=metadata.next_sequence_number(),
        manifest_list=location,
        summary=Summary(operation) if branch else Summary(operation, **{"wap.id": "staged by the tests"}),
        schema_id=metadata.current_schema_id,
        first_row_id=next_row_id(metadata),
        added_rows=row_ids,
    )
    moved = []
    if branch:
        moved.append(SetSnapshotRefUpdate(ref_name=branch, type=SnapshotRefType.BRANCH, snapshot_id=snapshot_id))
    commit_table(
        table,
        (AssertRefSnapshotId(ref=branch or "main", snapshot_id=parent),),
        (AddSnapshotUpdate(snapshot=snapshot), *moved),
    )
    table.refresh()


def entries(table: Table) -> list[ManifestEntry]:
    """Live entries of the current snapshot, whole."""
    return [entry for manifest in snapshot_manifests(table) for entry in read_entries(table.io, manifest)]


def _kept(table: Table, parent: int | None, snapshot_id: int, removed: Collection[str]) -> Iterator[ManifestFile]:
    for manifest in snapshot_manifests(table, parent) if parent is not None else ():
        inside = read_entries(table.io, manifest)
        if not any(file_key(entry.data_file) in removed for entry in inside):
            yield manifest
            continue
        with _writer(table, manifest.content, manifest.partition_spec_id, snapshot_id) as writer:
            for entry in inside:
                (writer.delete if file_key(entry.data_file) in removed else writer.existing)(entry)
        yield writer.to_manifest_file()


def _added(table: Table, snapshot_id: int, files: Sequence[DataFile]) -> Iterator[ManifestFile]:
    for content in ManifestContent:
        for spec_id in {file.spec_id for file in files}:
            mine = [f for f in files if f.spec_id == spec_id and (f.content == 0) == (content == ManifestContent.DATA)]
            if not mine:
                continue
            with _writer(table, content, spec_id, snapshot_id) as writer:
                for file in mine:
                    status = ManifestEntryStatus.ADDED
                    writer.add(ManifestEntry.from_args(status=status, snapshot_id=snapshot_id, data_file=file))
            yield writer.to_manifest_file()


def _writer(table: Table, content: ManifestContent, spec_id: int, snapshot_id: int) -> Any:
    output = table.io.new_output(f"{table.location()}/metadata/{uuid4()}-m0.avro")
    return manifest_writer(table.metadata, content, spec_id, output, snapshot_id)


# --- the independent reader -------------------------------------------------------------------------------------------


class Live(NamedTuple):
    """A live file, as the manifests' own fields say.

    :ivar added_in: sequence number of the commit that added the file.
    """

    content: int
    path: str
    file_format: str
    records: int
    added_in: int
    first_row_id: int | None
    referenced: str | None
    offset: int | None
    size: int | None


class Row(NamedTuple):
    """A live row with its lineage."""

    values: tuple[Any, ...]
    row_id: int | None
    last_updated: int


def live(table: Table) -> list[Live]:
    """The live files of the current snapshot."""
    snapshot = table.metadata.current_snapshot()
    assert snapshot is not None
    return [file for manifest in _records(table, snapshot.manifest_list) for file in _live_in(table, manifest)]


def rows(table: Table) -> list[Row]:
    """All rows of a table without equality deletes, the other deletes applied, with the lineage that they have now."""
    files = live(table)
    names = [field.name for field in table.schema().fields]
    gone = _deleted(table, files)
    found = []
    for file in files:
        if file.content != 0:
            continue
        content = _content(table, file)
        absent = [None] * len(content)
        columns = {name: content[name].to_pylist() for name in content.column_names}
        ids = columns.get("_row_id", absent)
        updated = columns.get("_last_updated_sequence_number", absent)
        for position, values in enumerate(zip(*(columns.get(name, absent) for name in names), strict=True)):
            if position in gone.get(file.path, ()):
                continue
            row_id = ids[position]
            if row_id is None and file.first_row_id is not None:
                row_id = file.first_row_id + position
            changed = file.added_in if updated[position] is None else updated[position]
            found.append(Row(values, row_id, changed))
    return sorted(found, key=lambda row: (row.row_id is None, row.row_id, repr(row)))


def positions_of(table: Table, ids: Collection[int]) -> dict[str, list[int]]:
    """Where the live rows with these values in the first column are: positions by data file."""
    files = live(table)
    gone = _deleted(table, files)
    found: defaultdict[str, list[int]] = defaultdict(list)
    for file in files:
        if file.content == 0:
            values = _content(table, file).column(0).to_pylist()
            for position, value in enumerate(values):
                if value in ids and position not in gone.get(file.path, ()):
                    found[file.path].append(position)
    return dict(found)


def _content(table: Table, file: Live) -> pa.Table:
    with table.io.new_input(file.path).open() as stream:
        return pq.ParquetFile(stream).read()


def _deleted(table: Table, files: Sequence[Live]) -> dict[str, set[int]]:
    """Positions by data file: those of its deletion vector, where it has one, else those of all position deletes."""
    vectors: dict[str, set[int]] = {}
    found: defaultdict[str, set[int]] = defaultdict(set)
    for file in files:
        if file.content == 0:
            continue
        if file.file_format == "puffin":
            assert file.referenced is not None
            assert file.referenced not in vectors, f"two vectors for {file.referenced}"
            vectors[file.referenced] = set(vector_of(table, file))
        else:
            assert file.content == 1, f"{file.path} holds equality deletes"
            for row in _content(table, file).to_pylist():
                found[row["file_path"]].add(row["pos"])
    return {**found, **vectors}


def _records(table: Table, path: str) -> list[dict[str, Any]]:
    with AvroFile[Any](table.io.new_input(path)) as reader:
        names = [field.name for field in reader.schema.fields]
        nested = {
            field.name: [inner.name for inner in field.field_type.fields]
            for field in reader.schema.fields
            if field.name == "data_file"
        }
        found = []
        for record in reader:
            values = {name: record[place] for place, name in enumerate(names)}
            for name, inner in nested.items():
                values[name] = {one: values[name][place] for place, one in enumerate(inner)}
            found.append(values)
        return found


def _live_in(table: Table, manifest: dict[str, Any]) -> Iterator[Live]:
    next_id = manifest.get("first_row_id")
    for entry in _records(table, manifest["manifest_path"]):
        if entry["status"] == 2:
            continue
        file = entry["data_file"]
        content = file.get("content", 0)  # a manifest from before an upgrade may lack this and others
        added_in = entry.get("file_sequence_number")
        if added_in is None:
            assert entry["status"] == 1 or not manifest.get("sequence_number")
            added_in = manifest.get("sequence_number") or 0
        row_id = None
        if content == 0 and next_id is not None:
            row_id = file.get("first_row_id")
            if row_id is None:
                row_id, next_id = next_id, next_id + file["record_count"]
        yield Live(
            content,
            file["file_path"],
            file["file_format"].lower(),
            file["record_count"],
            added_in,
            row_id,
            file.get("referenced_data_file"),
            file.get("content_offset"),
            file.get("content_size_in_bytes"),
        )


def vector_of(table: Table, file: Live) -> list[int]:
    """Positions of a deletion vector, by the Puffin file's footer and the roaring format's text."""
    with table.io.new_input(file.path).open() as stream:
        whole = stream.read()
    assert whole[:4] == whole[-4:] == b"PFA1"
    length = struct.unpack("<i", whole[-12:-8])[0]
    footer = json.loads(whole[-12 - length : -12])
    told = next(blob for blob in footer["blobs"] if blob["offset"] == file.offset)
    assert told["type"] == "deletion-vector-v1"
    assert told["length"] == file.size
    assert told["properties"]["referenced-data-file"] == file.referenced
    assert int(told["properties"]["cardinality"]) == file.records
    assert file.offset is not None
    blob = whole[file.offset : file.offset + told["length"]]
    found = list(positions_in(blob))
    assert len(found) == file.records
    return found


def positions_in(blob: bytes) -> Iterator[int]:
    """Positions of a vector's blob."""
    data = blob[8:-4]
    count = struct.unpack_from("<Q", data)[0]
    at = 8
    for _ in range(count):
        key = struct.unpack_from("<I", data, at)[0]
        low, at = _bitmap(data, at + 4)
        yield from ((key << 32) | position for position in low)


def _bitmap(data: bytes, start: int) -> tuple[list[int], int]:
    """A 32-bit roaring bitmap: headers of its containers, then arrays, bit sets and runs."""
    cookie, at = struct.unpack_from("<I", data, start)[0], start + 4
    runs = 0
    if cookie & 0xFFFF == 12347:
        size = (cookie >> 16) + 1
        runs = int.from_bytes(data[at : at + (size + 7) // 8], "little")
        at += (size + 7) // 8
        has_offsets = size >= 4
    else:
        assert cookie == 12346
        size, at = struct.unpack_from("<I", data, at)[0], at + 4
        has_offsets = True
    heads = [struct.unpack_from("<HH", data, at + 4 * number) for number in range(size)]
    at += 4 * size + (4 * size if has_offsets else 0)
    found: list[int] = []
    for number, (key, less_one) in enumerate(heads):
        base = key << 16
        if runs >> number & 1:
            pairs, at = struct.unpack_from("<H", data, at)[0], at + 2
            for _ in range(pairs):
                first, more = struct.unpack_from("<HH", data, at)
                at += 4
                found += range(base + first, base + first + more + 1)
        elif less_one + 1 <= 4096:
            found += [base + value for value in struct.unpack_from(f"<{less_one + 1}H", data, at)]
            at += 2 * (less_one + 1)
        else:
            bits = int.from_bytes(data[at : at + 8192], "little")
            found += [base + bit for bit in range(65536) if bits >> bit & 1]
            at += 8192
    return found, at
