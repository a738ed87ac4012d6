"""Writes decoding loops for Avro records: chosen fields become values, the others are stepped over.

pyiceberg's binary decoder is fast because it believes every length that it reads, also one that damage made, and reads
on behind the end of its bytes. The loops hold every length and every count against the bytes that are left of the
block; what numbers may still overrun is the padding behind the block, see :func:`padded`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from pyiceberg.avro.decoder import BinaryDecoder
from pyiceberg.utils.decimal import bytes_to_decimal

Row = tuple[Any, ...]
Loop = Callable[[BinaryDecoder, bytes, int, Callable[[Row], None]], None]
"""Decodes so many records of a block; takes the decoder of the padded block, the block itself, their number, and what
takes the rows."""

_INTEGERS = ("int", "long")


class Projection(NamedTuple):
    """Which fields of each record to read.

    :ivar fields: Iceberg field ids, in the order in which they shall stand in a row.
    :ivar required: those that every writer's schema must have; the others are None where it has not.
    :ivar extents: field ids whose place is wanted: for each, where in the block its encoding begins and ends. They
        stand behind the values in a row.
    """

    fields: tuple[int, ...]
    required: frozenset[int]
    extents: tuple[int, ...] = ()


def padded(block: bytes) -> bytes:
    """A block with as many zeros behind it: whatever integers a count within bounds leads to, they end there."""
    return block + bytes(len(block) + 16)


def compile_loop(schema: Any, projection: Projection) -> tuple[Loop, frozenset[int]]:
    """The loop for records of an Avro schema, and those of the chosen field ids that the schema has.

    :raises ValueError: when the schema holds what Iceberg does not write.
    """
    return _Generator(projection).compile(schema)


def damaged(position: int, wanted: int, size: int) -> None:
    """:raises EOFError: always; called by the loops."""
    raise EOFError(f"{wanted} bytes or values are said to follow byte {position} of a block of {size} bytes")


_MOST_PAIRS = 1_000
"""For more, no pattern is made: it would match as well, but a damaged count must not cost much."""


@lru_cache(maxsize=256)
def _short_values(count: int) -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Matches so many pairs of a small integer and less than 64 bytes, as the bounds of columns mostly are.

    It never looks behind the end, and is faster than a decoder.
    """
    if count > _MOST_PAIRS:
        return lambda block, position: None
    lengths = sorted(range(64), key=lambda length: length not in (4, 8, 16))
    values = (re.escape(bytes([2 * length])) + (b".{%d}" % length if length else b"") for length in lengths)
    return re.compile(rb"(?:[\x00-\x7f](?:" + b"|".join(values) + rb")){%d}+" % count, re.DOTALL).match


def _step_over(decoder: BinaryDecoder, size: int, count: int) -> None:
    """Step over so many pairs of an integer and bytes, one by one."""
    for _ in range(count):
        decoder.skip_int()
        length = decoder.read_int()
        position = decoder.tell()
        if not 0 <= length <= size - position:
            damaged(position, length, size)
        decoder.skip(length)


class _Generator:
    """Writes the decoding loop for one schema. Only numbers of ours go into its source, never text of the file."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._lines: list[str] = []
        self._named: dict[str, Any] = {}
        self._names = 0
        self._found: set[int] = set()
        self._placed: set[int] = set()

    def compile(self, schema: Any) -> tuple[Loop, frozenset[int]]:
        self._record(schema, 2)
        slots = [f"f{slot}" if field in self._found else "None" for slot, field in enumerate(self._wanted)]
        for number, field in enumerate(self._projection.extents):
            slots += [f"b{number}", f"e{number}"] if field in self._placed else ["None", "None"]
        source = [
            "def loop(d, block, count, add):",
            "    ri, rbo, rf, rd, r = d.read_int, d.read_boolean, d.read_float, d.read_double, d.read",
            "    ris, rib, si, sk, tell = d.read_ints, d.read_int_bytes_dict, d.skip_int, d.skip, d.tell",
            "    size = len(block)",
            "    for _ in range(count):",
            *self._lines,
            f"        add(({''.join(slot + ', ' for slot in slots)}))",
        ]
        scope: dict[str, Any] = {"decimal": bytes_to_decimal, "UUID": UUID, "damaged": damaged}
        scope |= {"short": _short_values, "over": _step_over}
        exec("\n".join(source), scope)
        loop: Loop = scope["loop"]
        return loop, frozenset(self._found)

    @property
    def _wanted(self) -> tuple[int, ...]:
        return self._projection.fields

    def _line(self, indent: int, text: str) -> None:
        self._lines.append("    " * indent + text)

    def _variable(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _hold(self, indent: int, length: str) -> None:
        """Hold a length or count against the bytes left: even the smallest value takes one."""
        self._line(indent, f"if not 0 <= {length} <= size - tell(): damaged(tell(), {length}, size)")

    def _inside(self, indent: int) -> None:
        """Records of an array take several bytes each, so their count alone does not tell that they are there."""
        self._line(indent, "if tell() >= size: damaged(tell(), 1, size)")

    def _record(self, schema: Any, indent: int) -> None:
        """The entry and its nested ``data_file``: wanted fields into their slots, the others skipped."""
        for field in schema["fields"]:
            field_id = field.get("field-id")
            place = self._projection.extents.index(field_id) if field_id in self._projection.extents else None
            if place is not None:
                self._placed.add(field_id)
                self._line(indent, f"b{place} = tell()")
            if field_id in self._wanted:
                self._found.add(field_id)
                self._read(field["type"], f"f{self._wanted.index(field_id)}", indent)
            elif kind_of(field["type"]) == "record" and not isinstance(field["type"], list):
                self._define(field["type"])
                self._record(field["type"], indent)
            else:
                self._skip(field["type"], indent)
            if place is not None:
                self._line(indent, f"e{place} = tell()")

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
        kind = kind_of(schema)
        if expression := _READS.get(kind):
            self._line(indent, f"{target} = {expression}")
        elif kind in ("string", "bytes", "fixed"):
            length = str(int(schema["size"])) if kind == "fixed" else self._variable()
            if kind != "fixed":
                self._line(indent, f"{length} = ri()")
            self._hold(indent, length)
            expression = f"r({length})" + (".decode()" if kind == "string" else "")
            logical = schema.get("logicalType") if isinstance(schema, dict) else None
            if logical == "decimal":
                expression = f"decimal({expression}, {int(schema.get('scale', 0))})"
            elif logical == "uuid" and kind == "fixed":
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
        if kind_of(items) in _INTEGERS:
            empty, step = "()", [f"{target} += (*ris({{count}}),)"]
        elif _pair(items) == ("int", "bytes"):
            start = self._variable()
            empty = "{}"
            step = [
                f"{start} = tell()",
                f"if not short({{count}})(block, {start}):",
                "    over(d, size, {count})",
                f"    sk({start} - tell())",
                f"rib({{count}}, {target})",
            ]
        elif kind_of(items) == "record":
            self._read_records(items, target, indent)
            return
        else:
            raise ValueError(f"arrays of {items!r} cannot be read")
        self._line(indent, f"{target} = {empty}")

        def lines(count: str, deep: int) -> None:
            for line in step:
                self._line(deep, line.format(count=count))

        self._blocks(indent, skips_whole=False, step=lines)

    def _read_records(self, record: Any, target: str, indent: int) -> None:
        """Into a list of the values of each, as manifest lists tell of partitions."""
        self._line(indent, f"{target} = []")

        def lines(count: str, deep: int) -> None:
            value = self._variable()
            self._line(deep, f"for _ in range({count}):")
            self._inside(deep + 1)
            self._read(record, value, deep + 1)
            self._line(deep + 1, f"{target}.append({value})")

        self._blocks(indent, skips_whole=False, step=lines)

    def _blocks(self, indent: int, *, skips_whole: bool, step: Callable[[str, int], None]) -> None:
        """Walk an array's or map's blocks; a negative count is followed by the block's length in bytes."""
        count = self._variable()
        self._line(indent, f"{count} = ri()")
        self._line(indent, f"while {count}:")
        self._line(indent + 1, f"if {count} < 0:")
        if skips_whole:
            self._line(indent + 2, f"{count} = ri()")
            self._hold(indent + 2, count)
            self._line(indent + 2, f"sk({count})")
            self._line(indent + 1, "else:")
            self._hold(indent + 2, count)
            step(count, indent + 2)
        else:
            self._line(indent + 2, f"{count} = -{count}")
            self._line(indent + 2, "si()")
            self._hold(indent + 1, count)
            step(count, indent + 1)
        self._line(indent + 1, f"{count} = ri()")

    def _skip(self, schema: Any, indent: int) -> None:
        if isinstance(schema, list):
            self._option(schema, indent, self._skip, None)
            return
        schema = self._resolve(schema)
        kind = kind_of(schema)
        if kind in _SKIPS:
            if _SKIPS[kind]:
                self._line(indent, _SKIPS[kind])
        elif kind in ("string", "bytes"):
            length = self._variable()
            self._line(indent, f"{length} = ri()")
            self._hold(indent, length)
            self._line(indent, f"sk({length})")
        elif kind == "fixed":
            length = str(int(schema["size"]))
            self._hold(indent, length)
            self._line(indent, f"sk({length})")
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
        if kind_of(items) in _INTEGERS:
            self._line(indent, f"ris({count})")
        elif pair is not None and all(kind in _INTEGERS for kind in pair):
            self._line(indent, f"ris({count} * 2)")
        elif pair == ("int", "bytes"):
            place = self._variable()
            self._line(indent, f"{place} = tell()")
            self._line(indent, f"m{place} = short({count})(block, {place})")
            self._line(indent, f"if m{place}: sk(m{place}.end() - {place})")
            self._line(indent, f"else: over(d, size, {count})")
        else:
            self._line(indent, f"for _ in range({count}):")
            self._inside(indent + 1)
            self._skip(items, indent + 1)


_READS = {"int": "ri()", "long": "ri()", "boolean": "rbo()", "float": "rf()", "double": "rd()", "null": "None"}
_SKIPS = {"int": "si()", "long": "si()", "boolean": "sk(1)", "float": "sk(4)", "double": "sk(8)", "null": ""}


def kind_of(schema: Any) -> str:
    """The Avro type's name, with any wrapping of a primitive type taken off."""
    while isinstance(schema, dict):
        schema = schema["type"]
    return schema if isinstance(schema, str) else "union"


def _pair(schema: Any) -> tuple[str, str] | None:
    """The types of a key-value record, as Iceberg encodes maps with integer keys."""
    if isinstance(schema, dict) and schema.get("type") == "record" and len(schema["fields"]) == 2:
        key, value = (kind_of(field["type"]) for field in schema["fields"])
        return key, value
    return None
