"""Avro container files made byte by byte, for what pyiceberg does not write."""

from __future__ import annotations

import json
from typing import Any

SYNC = b"0123456789abcdef"


def container(schema: Any, *blocks: tuple[int, bytes], codec: str = "null") -> bytes:
    """A file of blocks, each a number of records and their encoding."""
    header = b"Obj\x01" + number(2)
    for key, value in ((b"avro.schema", json.dumps(schema).encode()), (b"avro.codec", codec.encode())):
        header += number(len(key)) + key + number(len(value)) + value
    return header + number(0) + SYNC + b"".join(number(n) + number(len(data)) + data + SYNC for n, data in blocks)


def number(value: int) -> bytes:
    """An int or long: zigzag, then seven bits a byte."""
    zigzag = (value << 1) ^ (value >> 63)
    out = b""
    while zigzag > 0x7F:
        out += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return out + bytes([zigzag])


def text(value: str) -> bytes:
    """A string."""
    data = value.encode()
    return number(len(data)) + data


def record(*fields: Any) -> dict[str, Any]:
    """A record schema."""
    return {"type": "record", "name": "entry", "fields": list(fields)}
