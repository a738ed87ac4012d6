"""Manifests written anew out of encoded entries: clustered by partition, many entries to a block, even in size."""

from __future__ import annotations

import secrets
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pyiceberg.avro.codecs import CODEC_MAPPING_ICEBERG_TO_AVRO, KNOWN_CODECS
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile, construct_partition_summaries
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.pyiceberg_manifests import codec, manifest_header, schema_for_spec
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.avro import raw_blocks
from airflow_provider_floe.iceberg.manifest_records import RawEntry, encode_long
from airflow_provider_floe.iceberg.manifest_selection import expected_manifests, target_manifest_size

_compressobj: Callable[[int, int, int], Any]
_crc32: Callable[[bytes], int]
try:
    from isal import isal_zlib

    _compressobj, _crc32, _LEVEL = isal_zlib.compressobj, isal_zlib.crc32, 2
except ImportError:
    _compressobj, _crc32, _LEVEL = zlib.compressobj, zlib.crc32, 1

ENTRIES_PER_BLOCK = 500
_PARTITION, _ENCODED, _RECORDS, _SEQUENCE_NUMBER = map(itemgetter, range(4))
_RAW_DEFLATE = -15
_NAN = float("nan")
_UNASSIGNED = -1
"""Sequence number of a manifest until its manifest list is written."""


@dataclass(frozen=True)
class Shape:
    """What all manifests have in common that are written of one group.

    :ivar positions: of the partition fields to cluster by, most significant first.
    """

    metadata: TableMetadata
    content: ManifestContent
    spec_id: int
    snapshot_id: int
    positions: Sequence[int]


class Tally:
    """Number of entries and a sum over which they are, whatever their order.

    The sum is over the objects, all of which live until the last is written: their bytes need not be gone through.
    """

    def __init__(self) -> None:
        self.count = 0
        self._total = 0

    def add(self, entries: Sequence[RawEntry]) -> None:
        """Count entries in."""
        self.count += len(entries)
        self._total += sum(map(id, entries))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.count, self._total) == (other.count, other._total)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Written:
    """A manifest that was written, and what must be read back.

    :ivar blocks: number of entries and checksum of each block before it was compressed.
    """

    manifest: ManifestFile
    blocks: tuple[tuple[int, int], ...]

    def stands(self, data: bytes) -> bool:
        """Whether its bytes in storage hold the blocks that were written."""
        path = self.manifest.manifest_path
        return self.blocks == tuple((count, _crc32(block)) for count, block in raw_blocks(data, path))


def clustered(blocks: Iterable[Sequence[RawEntry]], positions: Sequence[int]) -> list[RawEntry]:
    """Entries by partition, NULL first; those of one partition in the order in which they came."""
    partitions: defaultdict[tuple[Any, ...], list[RawEntry]] = defaultdict(list)
    for entries in blocks:
        for entry in entries:
            partitions[entry[0]].append(entry)
    # Python takes two NaN for different, unless they are one object
    for key in [key for key in partitions if any(value != value for value in key)]:
        of_nan = partitions.pop(key)
        partitions[tuple(_NAN if value != value else value for value in key)] += of_nan

    def rank(key: tuple[Any, ...]) -> tuple[Any, ...]:
        values = (key[position] for position in positions)
        return tuple((value is not None, value == value, value if value is not None else 0) for value in values)

    return [entry for key in sorted(partitions, key=rank) for entry in partitions[key]]


def write_manifests(
    io: FileIO,
    shape: Shape,
    entries: Sequence[RawEntry],
    size_bytes: int,
    tally: Tally,
    new_path: Callable[[], str],
) -> Iterator[Written]:
    """Write entries in order into manifests of about even size, by the bytes that entries turn out to take.

    :param size_bytes: what the entries took in the manifests that they come from.
    :param tally: counts what is written.
    :param new_path: where the next manifest goes.
    """
    header = manifest_header(shape.metadata, shape.content, shape.spec_id)
    compress = _compression(shape.metadata)
    target = target_manifest_size(shape.metadata)
    bytes_per_entry = size_bytes / max(1, len(entries))
    done = 0
    while done < len(entries):
        to_come = (len(entries) - done) * bytes_per_entry
        share = to_come / expected_manifests(to_come, target)
        first = done
        sync = secrets.token_bytes(16)
        parts = [_header(header, compress), sync]
        size = len(parts[0])
        blocks: list[tuple[int, int]] = []
        summary = _Summary()
        while done < len(entries) and (done == first or size < share):
            block = entries[done : done + ENTRIES_PER_BLOCK]
            tally.add(block)
            summary.add(block)
            raw = b"".join(map(_ENCODED, block))
            blocks.append((len(block), _crc32(raw)))
            packed = compress.function(raw)
            parts += [encode_long(len(block)), encode_long(len(packed)), packed, sync]
            size += len(packed) + len(sync)
            done += len(block)
        manifest = _write(io, shape, summary, parts, new_path())
        bytes_per_entry = manifest.manifest_length / (done - first)
        yield Written(manifest, tuple(blocks))


class _Summary:
    """What a manifest list says of a manifest's entries, summed up block by block while they are at hand."""

    def __init__(self) -> None:
        self.entries = 0
        self.records = 0
        self.least_sequence_number: int | None = None
        self.partitions: set[tuple[Any, ...]] = set()

    def add(self, entries: Sequence[RawEntry]) -> None:
        self.entries += len(entries)
        self.records += sum(map(_RECORDS, entries))
        least = min(map(_SEQUENCE_NUMBER, entries))
        known = self.least_sequence_number
        self.least_sequence_number = least if known is None else min(known, least)
        self.partitions.update(map(_PARTITION, entries))


def _write(io: FileIO, shape: Shape, summary: _Summary, parts: Sequence[bytes], path: str) -> ManifestFile:
    with io.new_output(path).create() as stream:
        for part in parts:
            stream.write(part)
    metadata = shape.metadata
    spec = metadata.specs()[shape.spec_id]
    partitions = [Record(*key) for key in summary.partitions]
    return ManifestFile.from_args(
        manifest_path=path,
        manifest_length=sum(map(len, parts)),
        partition_spec_id=shape.spec_id,
        content=shape.content,
        sequence_number=_UNASSIGNED if metadata.format_version > 1 else 0,
        min_sequence_number=summary.least_sequence_number,
        added_snapshot_id=shape.snapshot_id,
        added_files_count=0,
        existing_files_count=summary.entries,
        deleted_files_count=0,
        added_rows_count=0,
        existing_rows_count=summary.records,
        deleted_rows_count=0,
        partitions=construct_partition_summaries(spec, schema_for_spec(metadata, spec), partitions),
        key_metadata=None,
    )


@dataclass(frozen=True)
class _Compression:
    name: str
    function: Callable[[bytes], bytes]


def _compression(metadata: TableMetadata) -> _Compression:
    wanted = codec(metadata)
    name = CODEC_MAPPING_ICEBERG_TO_AVRO.get(wanted, wanted)
    if name == "deflate":
        return _Compression(name, _deflate)
    if name in ("null", "uncompressed"):
        return _Compression("null", bytes)
    found = KNOWN_CODECS.get(name)
    if found is None:
        raise ConfigurationError(
            f"table property write.avro.compression-codec={wanted!r} is not known: "
            "use gzip, zstd, snappy or uncompressed"
        )
    compress = found.compress
    return _Compression(name, lambda data: compress(data)[0])


def _deflate(data: bytes) -> bytes:
    packer = _compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return packer.compress(data) + packer.flush()  # type: ignore[no-any-return]


def _header(header: Mapping[str, str], compression: _Compression) -> bytes:
    pairs = {**header, "avro.codec": compression.name}
    out = [b"Obj\x01", encode_long(len(pairs))]
    for text in (text for pair in pairs.items() for text in pair):
        data = text.encode()
        out += [encode_long(len(data)), data]
    return b"".join((*out, b"\x00"))
