"""Trino's way to write names, texts, durations and sizes."""

from __future__ import annotations

from airflow_provider_floe.tables import TableRef


def name(part: str) -> str:
    """A quoted identifier."""
    return '"' + part.replace('"', '""') + '"'


def text(value: str) -> str:
    """A quoted text."""
    return "'" + value.replace("'", "''") + "'"


def table_name(catalog: str, table: TableRef, metadata_table: str = "") -> str:
    """The qualified name of a table or of one of its metadata tables; levels of a namespace are joined by dots.

    :param catalog: Trino's name of the catalog.
    """
    last = f"{table.name}${metadata_table}" if metadata_table else table.name
    return f"{name(catalog)}.{name('.'.join(table.namespace))}.{name(last)}"


def milliseconds(count: int) -> str:
    """A duration, as a quoted text."""
    return text(f"{count}ms")


def size(count: int) -> str:
    """A data size in bytes, as a quoted text."""
    return text(f"{count}B")


_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Of a duration as Trino shows it, such as ``7.00d``.

    :raises ValueError: when it is none.
    """
    number = duration.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * _UNITS[duration[len(number) :].strip()]
