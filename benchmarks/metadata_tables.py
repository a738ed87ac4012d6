"""Tables made of metadata alone: manifests as writers leave them, whose data files do not exist."""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import ManifestContent, ManifestFile, construct_partition_summaries, write_manifest_list
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField, StringType

COLUMNS = 16
PARTITIONS = 300
ENTRIES_PER_BLOCK = 100
_SYNC = bytes(range(16))


@dataclass(frozen=True)
class StoredFiles:
    """Files of a manifest that are there: all have the same content, which takes room once.

    :ivar file: what each of them is a hard link to.
    :ivar partition: of all of them.
    :ivar share: how many of the manifest's files they are, from 0 to 1.
    """

    file: Path
    records: int
    partition: int
    share: float

    def link(self, path: str) -> None:
        """Make one of them."""
        target = Path(path.removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.file, target)


def catalog(folder: Path) -> SqlCatalog:
    """A catalog on SQLite with the namespace ``db``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    found.create_namespace_if_not_exists("db")
    return found


def create_table(lake: SqlCatalog, name: str) -> Table:
    """An empty table of 16 columns, partitioned by the first, format version 2."""
    columns = (NestedField(i, f"c{i}", LongType() if i % 2 else StringType()) for i in range(2, COLUMNS + 1))
    schema = Schema(NestedField(1, "month", IntegerType()), *columns)
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "month"))
    table = lake.create_table(f"db.{name}", schema=schema, partition_spec=spec, properties={"format-version": "2"})
    (Path(table.location().removeprefix("file://")) / "metadata").mkdir(parents=True, exist_ok=True)
    return table


def any_size(rnd: random.Random) -> int:
    """Bytes of a file: 9 MB or a tenth or ten times of it."""
    return int(rnd.lognormvariate(16, 1.5)) + 4_000


def write_manifest(
    table: Table,
    number: int,
    entries: int,
    snapshot_id: int,
    *,
    first: int = 0,
    size: Callable[[random.Random], int] = any_size,
    stored: StoredFiles | None = None,
) -> ManifestFile:
    """A manifest as Java writers leave it: added files, many to a block, with bounds of all columns.

    The partitions of its files are scattered, as appends of a busy stream leave them.

    :param first: number of its first file.
    :param size: of each file in bytes.
    :param stored: those of the files that are there; of them a manifest has no statistics.
    """
    rnd = random.Random(number * 1_000_003 + first)
    path = f"{table.location()}/metadata/{number:08}-{first}-m0.avro"
    partitions: set[int] = set()
    rows = 0
    out = bytearray(_header(table))
    for start in range(first, first + entries, ENTRIES_PER_BLOCK):
        count = min(ENTRIES_PER_BLOCK, first + entries - start)
        block = bytearray()
        for file in range(start, start + count):
            is_stored = stored is not None and rnd.random() < stored.share
            partition = stored.partition if stored and is_stored else 360 + rnd.randrange(PARTITIONS)
            records = stored.records if stored and is_stored else rnd.randrange(1_000, 200_000)
            partitions.add(partition)
            rows += records
            name = f"{table.location()}/data/month={partition}/{file:08}-{number:08}"
            file_path = f"{name}-{rnd.getrandbits(64):016x}-00001.parquet"
            if stored and is_stored:
                stored.link(file_path)
                block += _entry(file_path, partition, records, stored.file.stat().st_size, _NO_METRICS)
            else:
                block += _entry(file_path, partition, records, size(rnd), _metrics_of(rnd, records))
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(bytes(block)) + packer.flush()
        out += _long(count) + _long(len(packed)) + packed + _SYNC
    Path(path.removeprefix("file://")).write_bytes(out)
    tuples = [Record(partition) for partition in partitions]
    return ManifestFile.from_args(
        manifest_path=path,
        manifest_length=len(out),
        partition_spec_id=0,
        content=ManifestContent.DATA,
        sequence_number=-1,
        min_sequence_number=-1,
        added_snapshot_id=snapshot_id,
        added_files_count=entries,
        existing_files_count=0,
        deleted_files_count=0,
        added_rows_count=rows,
        existing_rows_count=0,
        deleted_rows_count=0,
        partitions=construct_partition_summaries(table.spec(), table.schema(), tuples),
        key_metadata=None,
    )


def copied(manifest: ManifestFile, name: str) -> ManifestFile:
    """The same manifest under another name, which takes no room."""
    path = f"{manifest.manifest_path.rpartition('/')[0]}/{name}.avro"
    os.link(manifest.manifest_path.removeprefix("file://"), path.removeprefix("file://"))
    copy = ManifestFile(*(manifest[place] for place in range(len(manifest))))
    copy[0] = path
    return copy


def numbered(manifests: Iterable[ManifestFile], sequence_number: int) -> list[ManifestFile]:
    """Manifests of a snapshot: those that are new bear its sequence number, as its manifest list will say."""
    found = []
    for manifest in manifests:
        if manifest.sequence_number == -1:
            manifest = ManifestFile(*(manifest[place] for place in range(len(manifest))))
            manifest.sequence_number = manifest.min_sequence_number = sequence_number
        found.append(manifest)
    return found


def register(table: Table, name: str) -> Table:
    """The same table under another name."""
    identifier = f"db.{name}"
    return table.catalog.register_table(identifier, table.metadata_location)


def commit(table: Table, snapshots: Iterable[tuple[int, list[ManifestFile]]], timestamps_ms: Iterator[int]) -> None:
    """Give an empty table snapshots of these ids with these manifests, branch main at the last.

    All in one new metadata file: adding snapshots one by one takes time by the square of their number.
    """
    found: list[Snapshot] = []
    parent: int | None = None
    for number, (snapshot_id, manifests) in enumerate(snapshots, 1):
        path = f"{table.location()}/metadata/snap-{snapshot_id}.avro"
        with write_manifest_list(2, table.io.new_output(path), snapshot_id, parent, number, "deflate") as writer:
            writer.add_manifests(manifests)
        found.append(
            Snapshot(
                snapshot_id=snapshot_id,
                parent_snapshot_id=parent,
                sequence_number=number,
                timestamp_ms=next(timestamps_ms),
                manifest_list=path,
                summary=Summary(Operation.APPEND, **{"total-records": "1", "total-data-files": "1"}),
                schema_id=0,
            )
        )
        parent = snapshot_id
    changes = {
        "snapshots": found,
        "current_snapshot_id": parent,
        "last_sequence_number": len(found),
        "last_updated_ms": found[-1].timestamp_ms,
        "refs": {"main": SnapshotRef(snapshot_id=parent, snapshot_ref_type=SnapshotRefType.BRANCH)},
    }
    location = f"{table.location()}/metadata/00001-made.metadata.json"
    ToOutputFile.table_metadata(table.metadata.model_copy(update=changes), table.io.new_output(location))
    table.catalog.drop_table(table.name())
    table.catalog.register_table(table.name(), location)
    table.refresh()


def _header(table: Table) -> bytes:
    metadata = {
        "schema": table.schema().model_dump_json(),
        "partition-spec": json.dumps([field.model_dump(by_alias=True, mode="json") for field in table.spec().fields]),
        "partition-spec-id": "0",
        "format-version": "2",
        "content": "data",
        "avro.schema": json.dumps(_SCHEMA),
        "avro.codec": "deflate",
    }
    pairs = b"".join(_text(key) + _text(value) for key, value in metadata.items())
    return b"Obj\x01" + _long(len(metadata)) + pairs + b"\x00" + _SYNC


def _entry(path: str, partition: int, records: int, size: int, metrics: bytes) -> bytes:
    return b"".join(
        (
            b"\x02\x00\x00\x00",  # added; snapshot and sequence numbers are inherited
            b"\x00",  # content: data
            _text(path),
            b"\x0ePARQUET",
            b"\x02" + _long(partition),
            _long(records),
            _long(size),
            metrics,
            b"\x00",  # no key metadata
            b"\x02\x02\x08\x00",  # split offsets: 4
            b"\x00",  # no equality ids
            b"\x02\x00",  # sort order 0
        )
    )


def _metrics_of(rnd: random.Random, records: int) -> bytes:
    few = _long(records)
    counts = b"".join([key + few for key in _KEYS])
    sizes, bounds = _metrics()[rnd.randrange(_VARIANTS)]
    start, end = b"\x02" + _long(COLUMNS), b"\x00"
    no_nan_counts = b"\x02\x00"
    return b"".join((start, sizes, end, start, counts, end, start, _NO_NULLS, end, no_nan_counts, bounds))


@cache
def _metrics() -> list[tuple[bytes, bytes]]:
    """Sizes of columns, and bounds, of many files: more than deflate can find again in its window."""
    rnd = random.Random(COLUMNS)
    ids = range(1, COLUMNS + 1)
    start, end = b"\x02" + _long(COLUMNS), b"\x00"
    found = []
    for _ in range(_VARIANTS):
        sizes = b"".join(_long(i) + _long(rnd.randrange(1, 1 << 22)) for i in ids)
        lower, upper = (b"".join(_long(i) + _bound(rnd, i) for i in ids) for _ in range(2))
        found.append((sizes, start + lower + end + start + upper + end))
    return found


def _bound(rnd: random.Random, column: int) -> bytes:
    if column == 1:
        return b"\x08" + struct.pack("<i", rnd.randrange(1 << 30))
    if column % 2:
        return b"\x10" + struct.pack("<q", rnd.randrange(1 << 40))
    return b"\x20" + rnd.randbytes(8).hex().encode()


def _long(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return _long(len(data)) + data


_VARIANTS = 4_096
_NO_METRICS = b"\x00" * 6
_KEYS = [_long(i) for i in range(1, COLUMNS + 1)]
_NO_NULLS = b"".join(_long(i) + b"\x00" for i in range(1, COLUMNS + 1))


def _field(name: str, field_id: int, kind: object, *, required: bool = False) -> dict[str, object]:
    return {"name": name, "type": kind if required else ["null", kind], "field-id": field_id}


def _map(key_id: int, value: str) -> dict[str, object]:
    pair = [_field("key", key_id, "int", required=True), _field("value", key_id + 1, value, required=True)]
    record = {"type": "record", "name": f"k{key_id}_v{key_id + 1}", "fields": pair}
    return {"type": "array", "items": record, "logicalType": "map"}


def _list(element_id: int, items: str) -> dict[str, object]:
    return {"type": "array", "items": items, "element-id": element_id}


_PARTITION = {"type": "record", "name": "r102", "fields": [_field("month", 1000, "int")]}
_FILE = {
    "type": "record",
    "name": "r2",
    "fields": [
        _field("content", 134, "int", required=True),
        _field("file_path", 100, "string", required=True),
        _field("file_format", 101, "string", required=True),
        _field("partition", 102, _PARTITION, required=True),
        _field("record_count", 103, "long", required=True),
        _field("file_size_in_bytes", 104, "long", required=True),
        _field("column_sizes", 108, _map(117, "long")),
        _field("value_counts", 109, _map(119, "long")),
        _field("null_value_counts", 110, _map(121, "long")),
        _field("nan_value_counts", 137, _map(138, "long")),
        _field("lower_bounds", 125, _map(126, "bytes")),
        _field("upper_bounds", 128, _map(129, "bytes")),
        _field("key_metadata", 131, "bytes"),
        _field("split_offsets", 132, _list(133, "long")),
        _field("equality_ids", 135, _list(136, "int")),
        _field("sort_order_id", 140, "int"),
    ],
}
_SCHEMA = {
    "type": "record",
    "name": "manifest_entry",
    "fields": [
        _field("status", 0, "int", required=True),
        _field("snapshot_id", 1, "long"),
        _field("sequence_number", 3, "long"),
        _field("file_sequence_number", 4, "long"),
        _field("data_file", 2, _FILE, required=True),
    ],
}
