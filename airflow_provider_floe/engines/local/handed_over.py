"""Data files that are not in a manifest yet as JSON, so that another task can commit them."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from pyiceberg.manifest import DATA_FILE_TYPE, DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record
from pyiceberg.types import MapType

_FIELDS = DATA_FILE_TYPE[3].fields
_MAPS = frozenset(field.name for field in _FIELDS if isinstance(field.field_type, MapType))
"""Fields that map column ids to something."""

_KINDS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "decimal": (Decimal, str, Decimal),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "float": (float, repr, float),
}
"""Values that JSON does not know, by the name that stands before them; a datetime is a date too, so it comes first."""


def handed_over(files: Sequence[DataFile], *, copied: bool) -> dict[str, Any]:
    """What one task tells another of the files that it wrote for a group.

    :param copied: row groups were copied as they were.
    """
    return {"files": [file_to_json(file) for file in files], "copied": copied}


def paths_in(document: Mapping[str, Any]) -> list[str]:
    """The paths of the files of :func:`handed_over`."""
    return [file["file_path"] for file in document["files"]]


def file_to_json(file: DataFile) -> dict[str, Any]:
    """Everything that a manifest will say of a file, and its partition spec."""
    found: dict[str, Any] = {"spec_id": file.spec_id}
    for place, field in enumerate(_FIELDS[: len(file)]):
        value = file[place]
        if value is None:
            continue
        if field.name in _MAPS:
            value = {str(column): _to_json(one) for column, one in dict(value).items()}
        elif field.name == "partition":
            value = [_to_json(one) for one in value]
        else:
            value = _to_json(getattr(value, "value", value))
        found[field.name] = value
    return found


def file_from_json(document: Mapping[str, Any]) -> DataFile:
    """The file of :func:`file_to_json`."""
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if name in _MAPS:
            fields[name] = {int(column): _from_json(one) for column, one in value.items()}
        elif name == "partition":
            fields[name] = Record(*map(_from_json, value))
        else:
            fields[name] = _from_json(value)
    spec_id = fields.pop("spec_id")
    fields["content"] = DataFileContent(fields["content"])
    fields["file_format"] = FileFormat(fields["file_format"])
    file = DataFile.from_args(3, **fields)
    file.spec_id = spec_id
    return file


def _to_json(value: Any) -> Any:
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    return [_to_json(one) for one in value] if isinstance(value, list | tuple) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, text),) = value.items()
        return _KINDS[name][2](text)
    return [_from_json(one) for one in value] if isinstance(value, list) else value
