"""What a catalog kind is, and the fields of a connection that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_floe.tables import Operation, TableRef

if TYPE_CHECKING:
    from pyiceberg.table import Table


@dataclass(frozen=True, slots=True)
class ConnectionFields:
    """An Airflow connection without Airflow.

    :ivar host: a host, or a whole URI, which may hold a password: not shown.
    :ivar extra: the decoded JSON of the connection's extra.
    """

    conn_id: str
    conn_type: str = "floe"
    host: str | None = field(default=None, repr=False)
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


class CatalogKind(Protocol):
    """One kind of catalog: turns a connection's fields into pyiceberg's properties."""

    name: str

    def properties(self, connection: ConnectionFields) -> dict[str, str]:
        """Properties for pyiceberg's ``load_catalog``.

        :raises ConfigurationError: naming the connection, the field and the fix.
        """

    def cannot(self, operation: Operation) -> str | None:
        """Why this kind of catalog cannot take part in an operation; None when it can."""


class CatalogClient(Protocol):
    """One catalog, by the name that policies use. Thread-safe."""

    name: str
    kind: str

    def namespaces(self) -> list[tuple[str, ...]]:
        """All namespaces, nested ones included."""

    def tables(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> Iterator[TableRef]:
        """Tables of the given namespaces (default: all), many namespaces at a time, none of them loaded.

        :raises CatalogUnavailable: naming the connection and what to check.
        """

    def load(self, table: TableRef) -> Table:
        """Load a table anew.

        :raises TableNotFound: the catalog has no such table.
        :raises TableUnreadable: it is listed, but its metadata cannot be read.
        :raises CatalogUnavailable: the catalog did not answer.
        """

    def metadata_location(self, table: TableRef) -> str | None:
        """Path of the current metadata file where the catalog tells it without loading the table, else None."""

    def cannot(self, operation: Operation) -> str | None:
        """Why this catalog cannot take part in an operation; None when it can."""

    def describe(self) -> str:
        """One line: kind, server, number of namespaces, latency. For "Test connection" and ``airflow floe check``."""
