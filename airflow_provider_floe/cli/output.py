"""Prints rows as a plain table or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_INDENT = "    "
_LEAST_WIDTH = 20


def print_json(value: Any) -> None:
    """Pretty-printed, on standard output."""
    print(json.dumps(value, indent=2, default=str))


def print_rows(rows: Sequence[Mapping[str, Any]], output: str, *, empty: str) -> None:
    """Rows with the same keys.

    :param output: ``table`` or ``json``.
    :param empty: what a table without rows says.
    """
    if output == "json":
        print_json(list(rows))
    elif rows:
        print(table_text(rows))
    else:
        print(empty)


def print_entry(title: str, lines: Sequence[str]) -> None:
    """A title, and what belongs to it indented below, in the terminal's width."""
    print_text(title)
    for line in lines:
        for part in _wrapped(line, _terminal_width() - len(_INDENT)):
            print(f"{_INDENT}{part}")


def print_text(line: str) -> None:
    """A line, wrapped at the terminal's width and indented where it goes on."""
    first, *_ = parts = _wrapped(line, _terminal_width() - len(_INDENT))
    print("\n".join([first, *(f"{_INDENT}{part}" for part in parts[1:])]))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns under their names, as wide as their widest value; the last one is wrapped at the terminal's width."""
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    room = max(_terminal_width() - sum(widths[:-1]) - 2 * len(widths[:-1]), _LEAST_WIDTH)
    widths[-1] = min(widths[-1], room)
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for line in cells:
        for number, part in enumerate(_wrapped(line[-1], room)):
            shown = [*line[:-1], part] if number == 0 else [*("" for _ in line[:-1]), part]
            lines.append("  ".join(text.ljust(width) for text, width in zip(shown, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, _LEAST_WIDTH), break_long_words=False, break_on_hyphens=False) or [""]


def _terminal_width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "-"
    return str(value).replace("\n", " ")
