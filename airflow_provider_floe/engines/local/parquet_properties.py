"""The table's ``write.parquet.*`` properties that pyiceberg does not hand on to pyarrow."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from pyiceberg.table import TableProperties

from airflow_provider_floe.errors import ConfigurationError

_BLOOM = f"{TableProperties.PARQUET_BLOOM_FILTER_COLUMN_ENABLED_PREFIX}."
_BLOOM_FPP = "write.parquet.bloom-filter-fpp.column."
_FPP = 0.01
_MOST_DISTINCT = 1024**2
"""Rows of a row group at the most."""


def known_to_pyiceberg(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties without those that pyiceberg would warn of at every file."""
    own = (TableProperties.PARQUET_ROW_GROUP_SIZE_BYTES, TableProperties.PARQUET_BLOOM_FILTER_MAX_BYTES)
    return {name: text for name, text in properties.items() if name not in own and not name.startswith(_BLOOM)}


def row_group_bytes(properties: Mapping[str, str]) -> int | None:
    """Bytes, not yet compressed, that a row group is to have at the most; None when the table leaves that open.

    :raises ConfigurationError: for what is no positive number.
    """
    name = TableProperties.PARQUET_ROW_GROUP_SIZE_BYTES
    return _positive(name, properties[name]) if name in properties else None


def bloom_filters(properties: Mapping[str, str], columns: Collection[str]) -> dict[str, Any]:
    """Bloom filters that the table asks for, by column, as pyarrow takes them.

    :param columns: the columns that the files have; others are passed over, as Iceberg does.
    :raises ConfigurationError: for a size or a probability that is none.
    """
    name = TableProperties.PARQUET_BLOOM_FILTER_MAX_BYTES
    most_bytes = _positive(name, properties.get(name, str(TableProperties.PARQUET_BLOOM_FILTER_MAX_BYTES_DEFAULT)))
    found = {}
    for key, text in properties.items():
        column = key.removeprefix(_BLOOM)
        if column == key or column not in columns or text.lower() != "true":
            continue
        fpp = _probability(f"{_BLOOM_FPP}{column}", properties.get(f"{_BLOOM_FPP}{column}", str(_FPP)))
        # A split block filter of so many bits holds so many values; sizes are rounded up to powers of two.
        bits = 8 * 2 ** int(math.log2(most_bytes))
        fits = int(-bits * math.log(1 - fpp ** (1 / 8)) / 8)
        found[column] = {"ndv": max(1, min(_MOST_DISTINCT, fits)), "fpp": fpp}
    return found


def _positive(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise ConfigurationError(f"table property {name}={text!r} is no positive number of bytes")
    return number


def _probability(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise ConfigurationError(f"table property {name}={text!r} is no probability between 0 and 1")
    return number
