"""Opens a Floe store by URL."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.stores.protocols import FloeStore
from airflow_provider_floe.stores.sql.places import open_memory, open_postgresql, open_sqlite

ENTRY_POINT_GROUP = "airflow_provider_floe.stores"
"""Third parties register ``scheme = package.module:function``; the function takes the URL and returns a FloeStore."""

_BUILT_IN: dict[str, Callable[[str], FloeStore]] = {
    "memory": open_memory,
    "postgres": open_postgresql,
    "postgresql": open_postgresql,
    "sqlite": open_sqlite,
}


def open_store(url: str) -> FloeStore:
    """Open the store that a URL names, and bring its schema up to date.

    :param url: ``sqlite:////absolute/path/floe.db``, ``postgresql://user:password@host:5432/database``, ``memory://``,
        or a scheme that another package registered.
    :raises ConfigurationError: when the URL is not valid, or the schema is newer than this package.
    :raises StoreUnavailable: when the database does not answer.
    """
    scheme, separator, _ = url.partition("://")
    kind = scheme.split("+")[0].lower()
    if not separator or not kind:
        raise ConfigurationError(
            "the Floe store needs a URL such as sqlite:////opt/airflow/floe.db, postgresql://user:password@host/database"
            " or memory://; what was given has no scheme"
        )
    if kind in _BUILT_IN:
        return _BUILT_IN[kind](url)
    registered = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if kind not in registered:
        known = ", ".join(sorted({*_BUILT_IN, *registered}))
        raise ConfigurationError(f"no Floe store is registered for URLs of scheme {kind!r}; known are: {known}")
    opener: Callable[[str], FloeStore] = registered[kind].load()
    return opener(url)
