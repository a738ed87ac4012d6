"""Reads operator arguments that may come out of templates as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.tables import Operation

_NOTHING = ("", "none", "null")


def as_bool(value: bool | str, name: str) -> bool:
    """A switch.

    :raises ConfigurationError: naming the argument and its value.
    """
    if isinstance(value, bool):
        return value
    if value.strip().lower() in ("true", "1", "yes", "on"):
        return True
    if value.strip().lower() in (*_NOTHING, "false", "0", "no", "off"):
        return False
    raise ConfigurationError(f"{name} = {value!r} is not valid: write true or false")


def as_text(value: str | None) -> str | None:
    """Text; None for nothing."""
    return None if value is None or value.strip().lower() in _NOTHING else value.strip()


def as_namespace(value: str | Sequence[str]) -> str | Sequence[str]:
    """A namespace: ``"a.b"``, a list of levels, or such a list as JSON.

    :raises ConfigurationError: when the JSON is not a list of texts.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", '"')):
        parsed = _json(value, "namespace")
        if isinstance(parsed, str):
            return parsed
        if not (isinstance(parsed, list) and all(isinstance(level, str) for level in parsed)):
            raise ConfigurationError(f'namespace = {value!r} is not valid: write "a.b" or ["a", "b"]')
        return parsed
    return value


def as_operations(value: Sequence[Operation | str] | str | None) -> tuple[Operation, ...] | None:
    """Operations by either name, from a list, a JSON list or a comma list; None means all.

    :raises ConfigurationError: naming the value and the valid names.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
        return None
    names: Any = value
    if isinstance(value, str):
        names = _json(value, "operations") if value.lstrip().startswith("[") else value.split(",")
    found = {Operation.parse(str(name).strip()) for name in names}
    return tuple(operation for operation in Operation if operation in found) or None


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} = {text!r} is not valid JSON: {error}") from error
