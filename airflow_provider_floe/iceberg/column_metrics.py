"""What manifests say of the columns of chosen files. It is most of a manifest: that of other files is stepped over."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pyiceberg.avro.decoder import BinaryDecoder, new_decoder
from pyiceberg.manifest import ManifestFile

from airflow_provider_floe.iceberg.avro import Projection, read_blocks, read_header
from airflow_provider_floe.iceberg.manifests import DELETED

_STATUS, _PATH, _PARTITION, _RECORDS, _FILE = 0, 100, 102, 103, 2
_VALUES = (_STATUS, _PATH, _PARTITION, _RECORDS)
_COUNTS, _BOUNDS = (110, 109), (125, 128)
_PROJECTION = Projection(_VALUES, frozenset(_VALUES), (*_COUNTS, *_BOUNDS))


class ColumnMetrics(NamedTuple):
    """What a manifest says of one file's columns, by field id.

    :ivar partition: values as stored.
    :ivar nulls, values: number of nulls, and of values with nulls.
    :ivar lower, upper: bounds in Iceberg's single-value serialization.
    """

    path: str
    partition: tuple[Any, ...]
    records: int
    nulls: Mapping[int, int]
    values: Mapping[int, int]
    lower: Mapping[int, bytes]
    upper: Mapping[int, bytes]


def column_metrics(manifest: ManifestFile, data: bytes, paths: Container[str]) -> Iterator[ColumnMetrics]:
    """The metrics of those live files of a manifest that have one of the paths.

    :param data: the manifest's bytes.
    :raises TableUnreadable: when they are damaged.
    """
    nulls_of = _null_branches(read_header(data, manifest.manifest_path).metadata["avro.schema"])
    for block in read_blocks(data, _PROJECTION, manifest.manifest_path):
        for status, path, partition, records, *ends in block.rows:
            if status != DELETED and path in paths:
                found = [
                    _pairs(block.data, begin, end, nulls_of[field_id], of_bytes=field_id in _BOUNDS)
                    for field_id, begin, end in zip(_PROJECTION.extents, ends[::2], ends[1::2], strict=True)
                ]
                yield ColumnMetrics(path, partition, records, *found)


def _pairs(block: bytes, begin: int | None, end: int | None, null: int, *, of_bytes: bool) -> dict[int, Any]:
    """A map as Iceberg encodes those with integer keys; the loop that found its place has walked through it."""
    found: dict[int, Any] = {}
    if begin is None or end is None:
        return found
    decoder: BinaryDecoder = new_decoder(block[begin:end])
    if null >= 0 and decoder.read_int() == null:
        return found
    while count := decoder.read_int():
        if count < 0:
            count = -count
            decoder.skip_int()
        if of_bytes:
            decoder.read_int_bytes_dict(count, found)
        else:
            numbers = decoder.read_ints(2 * count)
            found.update(zip(numbers[::2], numbers[1::2], strict=True))
    return found


@lru_cache(maxsize=256)
def _null_branches(schema: bytes) -> Mapping[int, int]:
    """For each map, which branch of its union means that there is none; -1 where the map is always there."""
    file = next(field["type"] for field in json.loads(schema)["fields"] if field.get("field-id") == _FILE)
    types = {field.get("field-id"): field["type"] for field in file["fields"]}
    return {
        field_id: kind.index("null") if isinstance(kind := types.get(field_id), list) else -1
        for field_id in _PROJECTION.extents
    }
