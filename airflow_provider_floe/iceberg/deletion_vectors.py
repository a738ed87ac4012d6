"""Deletion vectors of format version 3: blobs ``deletion-vector-v1`` in Puffin files."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyiceberg.io import FileIO
from pyroaring import BitMap64

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.files import LiveFile

BLOB_TYPE = "deletion-vector-v1"
POSITION_COLUMN = 2147483545
"""Field id of ``pos``, which a blob's metadata names."""

_PUFFIN_MAGIC = b"PFA1"
_VECTOR_MAGIC = bytes((0xD1, 0xD3, 0x39, 0x64))
_HEAD, _TAIL = 4, 4
"""Bytes of the length before, and of the checksum after, the vector."""
_UNCOMMITTED = -1
"""Snapshot id and sequence number of a blob: inherited from the manifest, as the format demands."""


def read_vector(io: FileIO, file: LiveFile) -> Any:
    """The positions that a deletion vector removes, ascending. Only the vector's own bytes are fetched.

    :raises TableUnreadable: when there is no such vector there, it is damaged, or holds another number of positions
        than the manifest says.
    """
    where = f"deletion vector of {file.referenced_data_file} in {file.path}"
    if file.content_offset is None or file.content_size_bytes is None:
        raise TableUnreadable(f"{where}: the manifest does not say where it begins and ends")
    try:
        with io.new_input(file.path).open() as stream:
            stream.seek(file.content_offset)
            blob = stream.read(file.content_size_bytes)
    except Exception as error:
        raise TableUnreadable(f"{where} cannot be read: {error}") from error
    positions = decode_vector(blob, where)
    if len(positions) != file.record_count:
        raise TableUnreadable(
            f"{where} holds {len(positions):,} positions, but the manifest says {file.record_count:,}"
        )
    return positions


def decode_vector(blob: bytes, where: str) -> Any:
    """The positions in a blob, ascending, as a numpy array of 64-bit integers.

    :param where: names the blob in errors.
    :raises TableUnreadable: when the blob is damaged.
    """
    length = len(blob) - _HEAD - _TAIL
    told = int.from_bytes(blob[:_HEAD], "big")
    vector = blob[_HEAD:-_TAIL]
    if length < len(_VECTOR_MAGIC) or told != length or not vector.startswith(_VECTOR_MAGIC):
        raise TableUnreadable(f"{where} is damaged: {len(blob)} bytes that are no {BLOB_TYPE}")
    # the bitmaps are decoded by native code, which trusts its input
    if zlib.crc32(vector) != int.from_bytes(blob[-_TAIL:], "big"):
        raise TableUnreadable(f"{where} is damaged: its checksum is wrong")
    bitmap = BitMap64.deserialize(vector[len(_VECTOR_MAGIC) :])
    return np.array(bitmap.to_array(), dtype=np.int64)


def encode_vector(positions: Iterable[int]) -> bytes:
    """A blob that removes these positions."""
    bitmap = BitMap64(positions)
    bitmap.run_optimize()
    vector = _VECTOR_MAGIC + bitmap.serialize()
    return len(vector).to_bytes(_HEAD, "big") + vector + zlib.crc32(vector).to_bytes(_TAIL, "big")


@dataclass(frozen=True)
class Vector:
    """The positions to remove from one data file."""

    data_file: str
    positions: Sequence[int] | Any


@dataclass(frozen=True)
class Place:
    """Where in a Puffin file a vector was put; offset and length in bytes."""

    offset: int
    length: int


class PuffinFile:
    """A Puffin file of deletion vectors, as it grows."""

    def __init__(self) -> None:
        self._content = bytearray(_PUFFIN_MAGIC)
        self._blobs: list[dict[str, Any]] = []

    @property
    def size_bytes(self) -> int:
        """Bytes of the vectors so far."""
        return len(self._content) - len(_PUFFIN_MAGIC)

    def add(self, vector: Vector) -> Place:
        """Put a vector in; returns where it stands."""
        blob = encode_vector(vector.positions)
        place = Place(len(self._content), len(blob))
        self._content += blob
        self._blobs.append(
            {
                "type": BLOB_TYPE,
                "fields": [POSITION_COLUMN],
                "snapshot-id": _UNCOMMITTED,
                "sequence-number": _UNCOMMITTED,
                "offset": place.offset,
                "length": place.length,
                "properties": {
                    "referenced-data-file": vector.data_file,
                    "cardinality": str(len(vector.positions)),
                },
            }
        )
        return place

    def finished(self, created_by: str) -> bytes:
        """The whole file."""
        footer = json.dumps({"blobs": self._blobs, "properties": {"created-by": created_by}}).encode()
        end = struct.pack("<iI", len(footer), 0)
        return bytes(self._content) + _PUFFIN_MAGIC + footer + end + _PUFFIN_MAGIC
