"""Prints rows as a plain table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


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


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns under their names, as wide as their widest value; the last one is not padded."""
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "-"
    return str(value).replace("\n", " ")
