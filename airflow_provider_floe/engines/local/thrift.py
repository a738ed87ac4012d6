"""Thrift's compact protocol, as far as Parquet uses it.

Structures are kept as they come, unknown fields included: what nobody here knows is passed on.
"""

from __future__ import annotations

from typing import Any

Struct = dict[int, tuple[int, Any]]
"""A Thrift structure: type and value by field id. Binary and doubles are bytes, a list is (type, items)."""

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12

_MOST_NESTED = 32
_MOST_VARINT = 10
_BOOLS = (TRUE, FALSE)
_INTEGERS = (I16, I32, I64)


class FooterError(ValueError):
    """Bytes that are no such structure, or a footer that describes what cannot be taken over."""


def decode(data: bytes | memoryview, start: int = 0) -> tuple[Struct, int]:
    """The structure that begins at ``start``, and where it ends.

    :raises FooterError: when the bytes are no structure in Thrift's compact protocol.
    """
    try:
        return _read_struct(bytes(data), start, 0)
    except IndexError:
        raise FooterError("the footer ends in the midst of a field") from None


def encode(fields: Struct) -> bytes:
    """A structure in Thrift's compact protocol."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, at + _MOST_VARINT):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise FooterError("a number in the footer is longer than 64 bits")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value, at = _varint(data, at)
    if value >> 64:
        raise FooterError("a number in the footer is longer than 64 bits")
    return (value >> 1) ^ -(value & 1), at


def _read_struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    if depth > _MOST_NESTED:
        raise FooterError(f"the footer is nested deeper than {_MOST_NESTED} levels")
    fields: Struct = {}
    field_id = 0
    while True:
        header = data[at]
        at += 1
        if header == 0:
            return fields, at
        kind = header & 0x0F
        if header >> 4:
            field_id += header >> 4
        else:
            field_id, at = _integer(data, at)
        if field_id in fields:
            raise FooterError(f"the footer has field {field_id} twice in one structure")
        if kind in _INTEGERS:
            value, at = _integer(data, at)
        else:
            value, at = _read(data, at, kind, depth)
        fields[field_id] = (kind, value)


def _read(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _BOOLS:  # a field's own type is its value
        return kind == TRUE, at
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == BINARY:
        length, at = _varint(data, at)
        return _bytes(data, at, length), at + length
    if kind == STRUCT:
        return _read_struct(data, at, depth + 1)
    if kind in (LIST, SET):
        return _read_list(data, at, depth + 1)
    if kind == BYTE:
        return data[at], at + 1
    if kind == DOUBLE:
        return _bytes(data, at, 8), at + 8
    raise FooterError(f"the footer has a value of type {kind}, which Parquet does not use")


def _read_list(data: bytes, at: int, depth: int) -> tuple[tuple[int, list[Any]], int]:
    header = data[at]
    kind, length, at = header & 0x0F, header >> 4, at + 1
    if length == 15:
        length, at = _varint(data, at)
    if length > len(data) - at:  # an item takes a byte at least
        raise FooterError(f"the footer has a list of {length:,} items, more than fit")
    if depth > _MOST_NESTED:
        raise FooterError(f"the footer is nested deeper than {_MOST_NESTED} levels")
    items: list[Any] = []
    if kind in _BOOLS:
        return (kind, list(_bytes(data, at, length))), at + length
    for _ in range(length):
        item, at = _read(data, at, kind, depth)
        items.append(item)
    return (kind, items), at


def _bytes(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise FooterError("the footer ends in the midst of a field")
    return data[at : at + length]


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def _write_integer(out: bytearray, value: int) -> None:
    _write_varint(out, ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF)


def _write_struct(out: bytearray, fields: Struct) -> None:
    last = 0
    for field_id in sorted(fields):
        kind, value = fields[field_id]
        if kind in _BOOLS:
            kind = TRUE if value else FALSE
        if 0 < field_id - last < 16:
            out.append((field_id - last) << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, field_id)
        last = field_id
        if kind not in _BOOLS:
            _write(out, kind, value)
    out.append(0)


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_integer(out, value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind in (LIST, SET):
        item_kind, items = value
        out.append(min(len(items), 15) << 4 | item_kind)
        if len(items) >= 15:
            _write_varint(out, len(items))
        if item_kind in _BOOLS:
            out += bytes(items)
        else:
            for item in items:
                _write(out, item_kind, item)
    elif kind == BYTE:
        out.append(value)
    else:
        out += value
