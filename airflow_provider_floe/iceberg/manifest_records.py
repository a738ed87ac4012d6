"""Manifest entries as bytes, which go from one manifest into another without being decoded.

What a manifest says of a file is copied as it is encoded. Only status, snapshot id and sequence numbers, which an
entry may inherit from its manifest, and in format version 3 the first row id are written anew. Where two writers
order or choose the fields of a file differently, runs of fields are copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from pyiceberg.manifest import ManifestFile

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.avro import Projection, read_blocks, read_header
from airflow_provider_floe.iceberg.avro_codegen import kind_of
from airflow_provider_floe.iceberg.manifests import ADDED, DELETED, first_row_id

_STATUS, _SNAPSHOT_ID, _DATA_FILE, _SEQUENCE_NUMBER, _FILE_SEQUENCE_NUMBER = 0, 1, 2, 3, 4
_PARTITION, _RECORDS, _CONTENT, _BLOCK_SIZE, _FIRST_ROW_ID = 102, 103, 134, 105, 142
_VALUES = (
    _STATUS,
    _SNAPSHOT_ID,
    _SEQUENCE_NUMBER,
    _FILE_SEQUENCE_NUMBER,
    _PARTITION,
    _RECORDS,
    _FIRST_ROW_ID,
)
_REQUIRED = frozenset((_STATUS, _PARTITION, _RECORDS))
_BEGINNING = itemgetter(slice(4))


RawEntry = tuple[tuple[Any, ...], bytes, int, int]
"""A live entry: its partition, all of it encoded as an existing one, the records of its file, its sequence number.
A plain tuple, as there are millions."""


@dataclass(frozen=True)
class Layout:
    """How a writer lays down entries.

    :ivar entry: field ids and types of the entry but for its file, which comes last.
    :ivar file: those of the file.
    """

    entry: tuple[tuple[int, Any], ...]
    file: tuple[tuple[int, Any], ...]


@dataclass(frozen=True)
class Conversion:
    """How entries of one layout become entries of another.

    :ivar projection: what has to be known of an entry.
    :ivar pieces: the file's encoding in order: bytes as they are, the run from one field to another, or None for the
        first row id.
    :ivar verbatim: the file's encoding stays the same, but for fields behind it that are left out.
    """

    target: Layout
    projection: Projection
    pieces: tuple[bytes | tuple[int, int] | None, ...]
    verbatim: bool


def layout(data: bytes, path: str) -> Layout:
    """The layout of a manifest.

    :raises TableUnreadable: when the bytes are no manifest.
    """
    return layout_of(read_header(data, path).metadata["avro.schema"])


@lru_cache(maxsize=256)
def layout_of(schema: bytes) -> Layout:
    """The layout that a writer's Avro schema describes.

    :raises TableUnreadable: when entries do not end with their file.
    """
    *head, file = json.loads(schema)["fields"]
    if file.get("field-id") != _DATA_FILE or kind_of(file["type"]) != "record":
        raise TableUnreadable("an entry of a manifest does not end with its file")
    named: dict[str, Any] = {}
    return Layout(_fields(head, named), _fields(file["type"]["fields"], named))


@lru_cache(maxsize=256)
def conversion(source: Layout, target: Layout, row_ids: bool) -> Conversion | None:
    """How to make entries of ``target`` from entries of ``source`` without loss.

    :param row_ids: first row ids are written out, as format version 3 wants of existing data files.
    :returns: None where values would have to be decoded.
    """
    has, wants = dict(source.file), dict(target.file)
    if not {field for field, _ in source.entry} <= {_STATUS, _SNAPSHOT_ID, _SEQUENCE_NUMBER, _FILE_SEQUENCE_NUMBER}:
        return None
    if not has.keys() <= wants.keys() | {_BLOCK_SIZE}:
        return None
    order = [field for field, _ in source.file]
    pieces: list[bytes | tuple[int, int] | None] = []
    for field, kind in target.file:
        last = pieces[-1] if pieces else None
        if field == _FIRST_ROW_ID and row_ids and kind == ("union", "null", "integer"):
            pieces.append(None)
        elif field in has:
            if has[field] != kind:
                return None
            if isinstance(last, tuple) and order.index(last[1]) + 1 == order.index(field):
                pieces[-1] = (last[0], field)
            else:
                pieces.append((field, field))
        elif field == _CONTENT and kind == "integer":
            pieces.append(encode_long(0))  # format version 1 knows data files only
        elif isinstance(kind, tuple) and kind[0] == "union":
            pieces.append(encode_long(kind.index("null") - 1))
        else:
            return None
    verbatim = pieces[0] == (order[0], order[-1]) and all(isinstance(piece, bytes) for piece in pieces[1:])
    ends = tuple(dict.fromkeys(field for piece in pieces if isinstance(piece, tuple) for field in piece))
    return Conversion(target, Projection(_VALUES, _REQUIRED, ends), tuple(pieces), verbatim)


def raw_entries(manifest: ManifestFile, data: bytes, how: Conversion) -> Iterator[list[RawEntry]]:
    """The live entries of a manifest, a block at a time, made existing ones, what they inherit written out.

    :raises TableUnreadable: when the manifest is damaged, or an existing file has no sequence number.
    """
    values, ends = len(_VALUES), how.projection.extents
    places = [
        (values + 2 * ends.index(piece[0]), values + 2 * ends.index(piece[1]) + 1)
        if isinstance(piece, tuple)
        else piece
        for piece in how.pieces
    ]
    begin, end = places[0] if how.verbatim and isinstance(places[0], tuple) else (0, 0)
    tail = b"".join(place for place in places if isinstance(place, bytes))
    heads = _Heads(manifest, how.target)
    next_row_id = first_row_id(manifest)
    for block in read_blocks(data, how.projection, manifest.manifest_path):
        raw = block.data
        live = [row for row in block.rows if row[0] != DELETED]
        if end:
            beginnings = map(heads.__getitem__, map(_BEGINNING, live))
            yield [
                (row[4], head + raw[row[begin] : row[end]] + tail, row[5], sequence_number)
                for row, (head, sequence_number) in zip(live, beginnings, strict=True)
            ]
            continue
        entries: list[RawEntry] = []
        for row in live:
            row_id = row[6]
            if next_row_id is None:
                row_id = None
            elif row_id is None:
                row_id = next_row_id
                next_row_id += row[5]
            head, sequence_number = heads[_BEGINNING(row)]
            entries.append((row[4], head + _assembled(raw, row, places, row_id), row[5], sequence_number))
        yield entries


class _Heads(dict[tuple[Any, ...], tuple[bytes, int]]):
    """The encoded beginning of existing entries and their sequence number, by what the entries said themselves."""

    def __init__(self, manifest: ManifestFile, target: Layout) -> None:
        self._manifest = manifest
        self._target = target

    def __missing__(self, said: tuple[Any, ...]) -> tuple[bytes, int]:
        found = self[said] = _head(self._manifest, self._target, *said)
        return found


def _assembled(raw: bytes, row: Sequence[Any], places: Sequence[Any], row_id: int | None) -> bytes:
    parts = []
    for place in places:
        if isinstance(place, tuple):
            parts.append(raw[row[place[0]] : row[place[1]]])
        elif place is not None:
            parts.append(place)
        else:
            parts.append(b"\x00" if row_id is None else b"\x02" + encode_long(row_id))
    return b"".join(parts)


def _head(
    manifest: ManifestFile, target: Layout, status: int, snapshot_id: int | None, sequence: int | None, file: int | None
) -> tuple[bytes, int]:
    """The beginning of an entry, and its sequence number."""
    inherits = status == ADDED or not manifest.sequence_number
    if sequence is None and not inherits:
        raise TableUnreadable(
            f"manifest {manifest.manifest_path}: an existing file has no sequence number, which the Iceberg format "
            "requires; which deletes apply to it cannot be told"
        )
    sequence = (manifest.sequence_number or 0) if sequence is None else sequence
    values: Mapping[int, int | None] = {
        _STATUS: 0,
        _SNAPSHOT_ID: manifest.added_snapshot_id if snapshot_id is None else snapshot_id,
        _SEQUENCE_NUMBER: sequence,
        _FILE_SEQUENCE_NUMBER: (manifest.sequence_number or 0) if file is None and inherits else file,
    }
    return b"".join(_encoded(values[field], kind) for field, kind in target.entry), sequence


def _encoded(value: int | None, kind: Any) -> bytes:
    if not isinstance(kind, tuple):
        return encode_long(value or 0)
    null = kind.index("null") - 1
    return encode_long(null) if value is None else encode_long(1 - null) + encode_long(value)


def encode_long(value: int) -> bytes:
    """An Avro int or long: zigzag, then seven bits a byte, the lowest first."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _fields(fields: Sequence[Any], named: dict[str, Any]) -> tuple[tuple[int, Any], ...]:
    return tuple((field.get("field-id", -1), _wire(field["type"], named)) for field in fields)


def _wire(schema: Any, named: dict[str, Any]) -> Any:
    """A type as far as it shows in the encoding: int and long are one, names and documentation do not count."""
    if isinstance(schema, list):
        return ("union", *(_wire(branch, named) for branch in schema))
    if isinstance(schema, dict) and "name" in schema:
        named[schema["name"]] = schema
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    kind = kind_of(schema)
    if kind in ("int", "long"):
        return "integer"
    if kind == "record":
        return ("record", _fields(schema["fields"], named))
    if kind == "array":
        return ("array", _wire(schema["items"], named))
    if kind == "map":
        return ("map", _wire(schema["values"], named))
    return ("fixed", schema["size"]) if kind == "fixed" else kind
