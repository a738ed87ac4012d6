"""Decodes manifest lists: whole as pyiceberg knows them, or what tells which manifests there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pyiceberg.manifest import MANIFEST_LIST_FILE_SCHEMAS, ManifestContent, ManifestFile, PartitionFieldSummary

from airflow_provider_floe.iceberg.avro import Projection, read_rows

_PATH, _LENGTH, _SPEC_ID, _ADDED, _EXISTING = 500, 501, 502, 504, 505
_ADDED_SNAPSHOT, _PARTITIONS, _CONTENT, _SEQUENCE_NUMBER, _MIN_SEQUENCE_NUMBER = 503, 507, 517, 515, 516

_FIELDS = tuple(field.field_id for field in MANIFEST_LIST_FILE_SCHEMAS[3].fields)
_REQUIRED = frozenset((_PATH, _LENGTH, _SPEC_ID))
_WHOLE = Projection(_FIELDS, _REQUIRED | {_ADDED_SNAPSHOT})
_BRIEF = Projection((_PATH, _LENGTH, _SPEC_ID, _ADDED, _EXISTING), _REQUIRED)
_ABSENT: Mapping[int, Any] = {_CONTENT: ManifestContent.DATA, _SEQUENCE_NUMBER: 0, _MIN_SEQUENCE_NUMBER: 0}
"""What format version 1 leaves out means."""


class ListedManifest(NamedTuple):
    """A manifest as a manifest list names it; briefer than pyiceberg's, for walking through thousands of lists.

    :ivar files: live ones that it holds; 0 where format version 1 does not tell.
    """

    path: str
    length: int
    spec_id: int
    files: int


def decode_list(data: bytes, path: str) -> list[ManifestFile]:
    """All that a manifest list of any format version says.

    :raises TableUnreadable: naming the file, when the bytes are no manifest list.
    """
    places = [(place, _ABSENT[field]) for place, field in enumerate(_FIELDS) if field in _ABSENT]
    content, partitions = _FIELDS.index(_CONTENT), _FIELDS.index(_PARTITIONS)
    found = []
    for row in read_rows(data, _WHOLE, path):
        values = list(row)
        for place, meaning in places:
            if values[place] is None:
                values[place] = meaning
        values[content] = ManifestContent(values[content])
        if values[partitions] is not None:
            values[partitions] = [PartitionFieldSummary(*summary) for summary in values[partitions]]
        found.append(ManifestFile(*values))
    return found


def listed_manifests(data: bytes, path: str) -> list[ListedManifest]:
    """The manifests that a list names.

    :raises TableUnreadable: naming the file, when the bytes are no manifest list.
    """
    return [
        ListedManifest(manifest, length, spec_id, (added or 0) + (existing or 0))
        for manifest, length, spec_id, added, existing in read_rows(data, _BRIEF, path)
    ]
