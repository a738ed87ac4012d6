"""Which engines there are: the built-in ones, and those that other packages register."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.errors import ConfigurationError

ENTRY_POINTS = "airflow_provider_floe.engines"
"""Group under which a package registers an engine: its name, and an :class:`EngineFactory`."""

_BUILT_IN = {"local": "airflow_provider_floe.engines.local.engine:LocalEngine"}


class EngineFactory(Protocol):
    """Makes an engine. It is called in tasks only, never while DAG files are parsed."""

    def __call__(self, *, memory_limit_bytes: int) -> Engine:
        """Make it.

        :param memory_limit_bytes: what work in this process should keep to; engines elsewhere need not look at it.
        """


def load_engine_factories() -> dict[str, EngineFactory]:
    """Factories by engine name; a built-in engine wins over a registered one of its name.

    Nothing is imported before a factory is called. Calling one raises :class:`ConfigurationError`, naming the entry
    point, when what it names cannot be imported or makes no engine.
    """
    registered: dict[str, EngineFactory] = {
        point.name: partial(_make, point.name, partial(_load, point)) for point in entry_points(group=ENTRY_POINTS)
    }
    return registered | {name: partial(_make, name, partial(_import, place)) for name, place in _BUILT_IN.items()}


def _import(place: str) -> EngineFactory:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]


def _load(point: EntryPoint) -> EngineFactory:
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as error:
        raise ConfigurationError(f"engine {point.name!r} of {point.value} cannot be loaded: {error}") from error


def _make(name: str, factory: Callable[[], EngineFactory], *, memory_limit_bytes: int) -> Engine:
    engine = factory()(memory_limit_bytes=memory_limit_bytes)
    if not isinstance(engine, Engine):
        raise ConfigurationError(f"engine {name!r}: {type(engine).__name__} has no name, probe and execute")
    return engine
