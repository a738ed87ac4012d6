"""Reads chosen fields out of Iceberg's Avro files, skipping the rest.

Manifests carry large metrics maps that most readers drop. For each writer schema a decoding loop is generated that
steps over unwanted fields without making objects of them; it runs over pyiceberg's own binary decoder. Fields are
chosen by Iceberg field id, as the format prescribes.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from pyiceberg.avro.codecs import KNOWN_CODECS
from pyiceberg.avro.decoder import BinaryDecoder, StreamingBinaryDecoder
from pyiceberg.utils.decimal import bytes_to_decimal

from airflow_provider_floe.errors import TableUnreadable

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
_INTEGERS = ("int", "long")

Row = tuple[Any, ...]
_Loop = Callable[[BinaryDecoder, int, Callable[[Row], None]], None]


class Projection(NamedTuple):
    """Which fields of each record to read.

    :ivar fields: Iceberg field ids, in the order in which they shall stand in a row.
    :ivar required: those that every writer's schema must have; the others are None where it has not.
    """

    fields: tuple[int, ...]
    required: frozenset[int]


def read_rows(data: bytes, projection: Projection, path: str) -> list[Row]:
    """Decode an Avro container file into rows of the chosen fields.

    A nested record becomes a tuple of its values, a map from int to bytes a dict, an array of integers a tuple.
    Values are as stored: a date is its number of days; decimals and UUIDs are Python's.

    :param path: names the file in errors.
    :raises TableUnreadable: when the bytes are no such file, or its schema or codec is not what Iceberg writes.
    """
    try:
        return _read_rows(data, projection, path)
    except TableUnreadable:
        raise
    except Exception as error:
        raise TableUnreadable(f"{path} cannot be decoded, it may be damaged: {error!r}") from error


def _read_rows(data: bytes, projection: Projection, path: str) -> list[Row]:
    if data[:4] != _MAGIC:
        raise TableUnreadable(f"{path} is not an Avro file: it starts with {data[:4]!r}")
    # The fast decoder trusts every length that it reads: a cut-off header must not reach it.
    header = StreamingBinaryDecoder(data)
    header.skip(len(_MAGIC))
    meta = _header(header)
    start = header.tell() + _SYNC_BYTES
    sync = data[start - _SYNC_BYTES : start]
    inflate = _codec(meta.get("avro.codec", b"null").decode(), path)
    if "avro.schema" not in meta:
        raise TableUnreadable(f"{path} has no Avro schema in its header")
    loop = _loop(meta["avro.schema"], projection, path)

    rows: list[Row] = []
    position = start
    blocks = _decoder(data)
    blocks.skip(start)
    while position < len(data):
        count, size = blocks.read_int(), blocks.read_int()
        begin = blocks.tell()
        end = begin + size
        if count < 0 or size < 0 or end + _SYNC_BYTES > len(data) or data[end : end + _SYNC_BYTES] != sync:
            raise TableUnreadable(f"{path} is damaged or cut off: block at byte {position} of {len(data)}")
        raw = inflate(data[begin:end])
        block = _decoder(raw)
        loop(block, count, rows.append)
        if block.tell() != len(raw):
            raise TableUnreadable(f"{path} is damaged: {len(raw) - block.tell()} bytes left of the block at {position}")
        blocks.skip(size + _SYNC_BYTES)
        position = end + _SYNC_BYTES
    return rows


def _header(decoder: BinaryDecoder) -> dict[str, bytes]:
    meta: dict[str, bytes] = {}
    while count := decoder.read_int():
        if count < 0:
            count = -count
            decoder.skip_int()
        for _ in range(count):
            key = decoder.read_utf8()
            meta[key] = decoder.read_bytes()
    return meta


def _codec(name: str, path: str) -> Callable[[bytes], bytes]:
    if name == "deflate":
        return lambda data: _inflate(data, _RAW_DEFLATE)
    if name == "null":
        return lambda data: data
    if codec := KNOWN_CODECS.get(name):  # type: ignore[call-overload]
        return codec.decompress  # type: ignore[no-any-return]
    raise TableUnreadable(f"{path} is compressed with {name!r}; readable are {', '.join(KNOWN_CODECS)}")


_compile_lock = threading.Lock()


def _loop(schema: bytes, projection: Projection, path: str) -> _Loop:
    with _compile_lock:
        loop, found = _compiled(schema, projection)
    if missing := projection.required - found:
        raise TableUnreadable(f"{path} lacks the Iceberg fields with ids {sorted(missing)} in its Avro schema")
    return loop


@lru_cache(maxsize=256)
def _compiled(schema: bytes, projection: Projection) -> tuple[_Loop, frozenset[int]]:
    return _Generator(projection).compile(json.loads(schema))


class _Generator:
    """Writes the decoding loop for one schema. Only numbers of ours go into its source, never text of the file."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._lines: list[str] = []
        self._named: dict[str, Any] = {}
        self._names = 0
        self._found: set[int] = set()

    def compile(self, schema: Any) -> tuple[_Loop, frozenset[int]]:
        self._record(schema, 2)
        slots = {field: f"f{slot}" if field in self._found else "None" for slot, field in enumerate(self._wanted)}
        row = "".join(slots[field] + ", " for field in self._wanted)
        source = [
            "def loop(d, count, add):",
            "    ri, rb, ru, rbo, rf, rd, r = "
            "d.read_int, d.read_bytes, d.read_utf8, d.read_boolean, d.read_float, d.read_double, d.read",
            "    ris, rib, si, sb, sk = d.read_ints, d.read_int_bytes_dict, d.skip_int, d.skip_bytes, d.skip",
            "    for _ in range(count):",
            *self._lines,
            f"        add(({row}))",
        ]
        scope: dict[str, Any] = {"decimal": bytes_to_decimal, "UUID": UUID}
        exec("\n".join(source), scope)
        loop: _Loop = scope["loop"]
        return loop, frozenset(self._found)

    @property
    def _wanted(self) -> tuple[int, ...]:
        return self._projection.fields

    def _line(self, indent: int, text: str) -> None:
        self._lines.append("    " * indent + text)

    def _variable(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _record(self, schema: Any, indent: int) -> None:
        """The entry and its nested ``data_file``: wanted fields into their slots, the others skipped."""
        for field in schema["fields"]:
            field_id = field.get("field-id")
            if field_id in self._wanted:
                self._found.add(field_id)
                self._read(field["type"], f"f{self._wanted.index(field_id)}", indent)
            elif _kind(field["type"]) == "record" and not isinstance(field["type"], list):
                self._define(field["type"])
                self._record(field["type"], indent)
            else:
                self._skip(field["type"], indent)

    def _define(self, schema: Any) -> None:
        if isinstance(schema, dict) and "name" in schema:
            self._named[schema["name"]] = schema

    def _resolve(self, schema: Any) -> Any:
        if isinstance(schema, str) and schema in self._named:
            return self._named[schema]
        self._define(schema)
        return schema

    def _option(self, union: Sequence[Any], indent: int, body: Callable[[Any, int], None], absent: str | None) -> None:
        if len(union) != 2 or "null" not in union:
            raise ValueError(f"union {union!r} is not an optional value")
        null = union.index("null")
        self._line(indent, f"if ri() != {null}:")
        before = len(self._lines)
        body(union[1 - null], indent + 1)
        if len(self._lines) == before:
            self._line(indent + 1, "pass")
        if absent is not None:
            self._line(indent, "else:")
            self._line(indent + 1, f"{absent} = None")

    def _read(self, schema: Any, target: str, indent: int) -> None:
        if isinstance(schema, list):
            self._option(schema, indent, lambda inner, deeper: self._read(inner, target, deeper), target)
            return
        schema = self._resolve(schema)
        kind = _kind(schema)
        if expression := _READS.get(kind):
            if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
                expression = f"decimal({expression}, {int(schema.get('scale', 0))})"
            self._line(indent, f"{target} = {expression}")
        elif kind == "fixed":
            expression = f"r({int(schema['size'])})"
            if schema.get("logicalType") == "decimal":
                expression = f"decimal({expression}, {int(schema.get('scale', 0))})"
            elif schema.get("logicalType") == "uuid":
                expression = f"UUID(bytes={expression})"
            self._line(indent, f"{target} = {expression}")
        elif kind == "record":
            parts = []
            for field in schema["fields"]:
                parts.append(self._variable())
                self._read(field["type"], parts[-1], indent)
            self._line(indent, f"{target} = ({''.join(part + ', ' for part in parts)})")
        elif kind == "array":
            self._read_array(schema, target, indent)
        else:
            raise ValueError(f"values of type {schema!r} cannot be read")

    def _read_array(self, schema: Any, target: str, indent: int) -> None:
        items = self._resolve(schema["items"])
        if _kind(items) in _INTEGERS:
            empty, step = "()", f"{target} += (*ris({{count}}),)"
        elif _pair(items) == ("int", "bytes"):
            empty, step = "{}", f"rib({{count}}, {target})"
        else:
            raise ValueError(f"arrays of {items!r} cannot be read")
        self._line(indent, f"{target} = {empty}")
        self._blocks(indent, skips_whole=False, step=lambda count, deep: self._line(deep, step.format(count=count)))

    def _blocks(self, indent: int, *, skips_whole: bool, step: Callable[[str, int], None]) -> None:
        """Walk an array's or map's blocks; a negative count is followed by the block's length in bytes."""
        count = self._variable()
        self._line(indent, f"{count} = ri()")
        self._line(indent, f"while {count}:")
        self._line(indent + 1, f"if {count} < 0:")
        if skips_whole:
            self._line(indent + 2, "sk(ri())")
            self._line(indent + 1, "else:")
            step(count, indent + 2)
        else:
            self._line(indent + 2, f"{count} = -{count}")
            self._line(indent + 2, "si()")
            step(count, indent + 1)
        self._line(indent + 1, f"{count} = ri()")

    def _skip(self, schema: Any, indent: int) -> None:
        if isinstance(schema, list):
            self._option(schema, indent, self._skip, None)
            return
        schema = self._resolve(schema)
        kind = _kind(schema)
        if kind in _SKIPS:
            if _SKIPS[kind]:
                self._line(indent, _SKIPS[kind])
        elif kind == "fixed":
            self._line(indent, f"sk({int(schema['size'])})")
        elif kind == "record":
            for field in schema["fields"]:
                self._skip(field["type"], indent)
        elif kind == "array":
            items = self._resolve(schema["items"])
            self._blocks(indent, skips_whole=True, step=lambda count, deep: self._skip_items(items, count, deep))
        elif kind == "map":
            pair = {"type": "record", "fields": [{"type": "string"}, {"type": schema["values"]}]}
            self._blocks(indent, skips_whole=True, step=lambda count, deep: self._skip_items(pair, count, deep))
        else:
            raise ValueError(f"values of type {schema!r} cannot be skipped")

    def _skip_items(self, items: Any, count: str, indent: int) -> None:
        """The metrics maps are most of a manifest: step over them in one call a block."""
        pair = _pair(items)
        if _kind(items) in _INTEGERS:
            self._line(indent, f"ris({count})")
        elif pair is not None and all(kind in _INTEGERS for kind in pair):
            self._line(indent, f"ris({count} * 2)")
        elif pair == ("int", "bytes"):
            self._line(indent, f"rib({count}, {{}})")
        else:
            self._line(indent, f"for _ in range({count}):")
            before = len(self._lines)
            self._skip(items, indent + 1)
            if len(self._lines) == before:
                self._line(indent + 1, "pass")


_READS = {
    "int": "ri()",
    "long": "ri()",
    "string": "ru()",
    "bytes": "rb()",
    "boolean": "rbo()",
    "float": "rf()",
    "double": "rd()",
    "null": "None",
}
_SKIPS = {
    "int": "si()",
    "long": "si()",
    "string": "sb()",
    "bytes": "sb()",
    "boolean": "sk(1)",
    "float": "sk(4)",
    "double": "sk(8)",
    "null": "",
}


def _kind(schema: Any) -> str:
    """The Avro type's name, with any wrapping of a primitive type taken off."""
    while isinstance(schema, dict):
        schema = schema["type"]
    return schema if isinstance(schema, str) else "union"


def _pair(schema: Any) -> tuple[str, str] | None:
    """The types of a key-value record, as Iceberg encodes maps with integer keys."""
    if isinstance(schema, dict) and schema.get("type") == "record" and len(schema["fields"]) == 2:
        key, value = (_kind(field["type"]) for field in schema["fields"])
        return key, value
    return None
