"""Reads chosen fields out of Iceberg's Avro files, skipping the rest.

Manifests carry large metrics maps that most readers drop. For each writer schema a decoding loop is generated that
steps over unwanted fields without making objects of them; it runs over pyiceberg's own binary decoder. Fields are
chosen by Iceberg field id, as the format prescribes.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from pyiceberg.avro.codecs import KNOWN_CODECS
from pyiceberg.avro.decoder import BinaryDecoder, StreamingBinaryDecoder

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.avro_codegen import Loop, Projection, Row, compile_loop, padded

__all__ = ["Block", "Header", "Projection", "Row", "raw_blocks", "read_blocks", "read_header", "read_rows"]

try:
    from isal import isal_zlib

    _inflate: Callable[[bytes, int], bytes] = isal_zlib.decompress
except ImportError:
    _inflate = zlib.decompress

try:
    from pyiceberg.avro.decoder_fast import CythonBinaryDecoder

    _decoder: Callable[[bytes], BinaryDecoder] = CythonBinaryDecoder
except ImportError:
    _decoder = StreamingBinaryDecoder

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_RAW_DEFLATE = -15


class Header(NamedTuple):
    """The beginning of an Avro container file.

    :ivar metadata: its key-value pairs, the writer's schema and the codec among them.
    :ivar size: bytes before the first block.
    """

    metadata: Mapping[str, bytes]
    size: int


class Block(NamedTuple):
    """Records that are stored together.

    :ivar data: their encoding, uncompressed; the extents in the rows are places in it.
    :ivar rows: the chosen fields of each.
    """

    data: bytes
    rows: list[Row]


def read_rows(data: bytes, projection: Projection, path: str) -> list[Row]:
    """Decode an Avro container file into rows of the chosen fields.

    A nested record becomes a tuple of its values, a map from int to bytes a dict, an array of integers a tuple.
    Values are as stored: a date is its number of days; decimals and UUIDs are Python's.

    :param path: names the file in errors.
    :raises TableUnreadable: when the bytes are no such file, or its schema or codec is not what Iceberg writes.
    """
    rows: list[Row] = []
    for block in read_blocks(data, projection, path):
        rows += block.rows
    return rows


def read_header(data: bytes, path: str) -> Header:
    """Decode what stands before the first block.

    :raises TableUnreadable: when the bytes are no Avro file, or have no schema.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        raise TableUnreadable(f"{path} is not an Avro file: it starts with {data[:4]!r}")
    try:
        metadata: dict[str, bytes] = {}
        place = len(_MAGIC)
        count, place = _long(data, place)
        while count:
            if count < 0:
                count = -count
                _, place = _long(data, place)
            for _ in range(count):
                key, place = _bytes(data, place)
                metadata[key.decode()], place = _bytes(data, place)
            count, place = _long(data, place)
        size = place + _SYNC_BYTES
    except Exception as error:
        raise _undecodable(path, error) from error
    if size > len(data):
        raise TableUnreadable(f"{path} is damaged or cut off: its header ends behind its {len(data)} bytes")
    if "avro.schema" not in metadata:
        raise TableUnreadable(f"{path} has no Avro schema in its header")
    return Header(metadata, size)


def _long(data: bytes, place: int) -> tuple[int, int]:
    """A number and the place behind it; the fast decoder trusts every length, and would read on behind the end."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), place
        shift += 7


def _bytes(data: bytes, place: int) -> tuple[bytes, int]:
    length, place = _long(data, place)
    if not 0 <= length <= len(data) - place:
        raise EOFError(f"{length} bytes are said to follow byte {place} of {len(data)}")
    return data[place : place + length], place + length


def read_blocks(data: bytes, projection: Projection, path: str) -> Iterator[Block]:
    """The blocks of an Avro container file, decoded one by one; see :func:`read_rows`."""
    header = read_header(data, path)
    try:
        with _compile_lock:
            loop, found = _compiled(header.metadata["avro.schema"], projection)
    except Exception as error:
        raise _undecodable(path, error) from error
    if missing := projection.required - found:
        raise TableUnreadable(f"{path} lacks the Iceberg fields with ids {sorted(missing)} in its Avro schema")
    for count, raw in raw_blocks(data, path):
        try:
            block = _decode(raw, count, loop)
        except Exception as error:
            raise _undecodable(path, error) from error
        yield block


def raw_blocks(data: bytes, path: str) -> Iterator[tuple[int, bytes]]:
    """The blocks of an Avro container file, each the number of its records and their encoding, uncompressed.

    :raises TableUnreadable: see :func:`read_rows`.
    """
    header = read_header(data, path)
    inflate = _codec(header.metadata.get("avro.codec", b"null").decode(errors="replace"), path)
    sync = data[header.size - _SYNC_BYTES : header.size]
    position = header.size
    blocks = _decoder(data)
    blocks.skip(position)
    while position < len(data):
        try:
            count, size = blocks.read_int(), blocks.read_int()
            begin = blocks.tell()
            end = begin + size
            if count < 0 or size < 0 or end + _SYNC_BYTES > len(data) or data[end : end + _SYNC_BYTES] != sync:
                raise TableUnreadable(f"{path} is damaged or cut off: block at byte {position} of {len(data)}")
            raw = inflate(data[begin:end])
        except TableUnreadable:
            raise
        except Exception as error:
            raise _undecodable(path, error) from error
        yield count, raw
        blocks.skip(size + _SYNC_BYTES)
        position = end + _SYNC_BYTES


def _decode(raw: bytes, count: int, loop: Loop) -> Block:
    decoder = _decoder(padded(raw))
    rows: list[Row] = []
    loop(decoder, raw, count, rows.append)
    if decoder.tell() != len(raw):
        raise EOFError(f"its {count} records take {decoder.tell()} bytes of a block of {len(raw)}")
    return Block(raw, rows)


def _undecodable(path: str, error: Exception) -> TableUnreadable:
    return TableUnreadable(f"{path} cannot be decoded, it may be damaged: {error!r}")


def _codec(name: str, path: str) -> Callable[[bytes], bytes]:
    if name == "deflate":
        return lambda data: _inflate(data, _RAW_DEFLATE)
    if name == "null":
        return lambda data: data
    if codec := KNOWN_CODECS.get(name):  # type: ignore[call-overload]
        return codec.decompress  # type: ignore[no-any-return]
    raise TableUnreadable(f"{path} is compressed with {name!r}; readable are {', '.join(KNOWN_CODECS)}")


_compile_lock = threading.Lock()


@lru_cache(maxsize=256)
def _compiled(schema: bytes, projection: Projection) -> tuple[Loop, frozenset[int]]:
    return compile_loop(json.loads(schema), projection)
