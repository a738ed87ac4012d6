"""One catalog, through pyiceberg: lists and loads tables, and says in plain words what went wrong."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    BadRequestError,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchPropertyException,
    NoSuchTableError,
    NotInstalledError,
    RESTError,
)
from pyiceberg.table import Table
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_floe.catalogs.base import CatalogClient, CatalogKind, ConnectionFields
from airflow_provider_floe.catalogs.diagnosis import advice, is_of_metastore
from airflow_provider_floe.catalogs.fields import catalog_name, secrets_of, without_secrets
from airflow_provider_floe.catalogs.registry import kind_of
from airflow_provider_floe.catalogs.sql import (
    sql_catalog_names,
    sql_metadata_location,
    sql_namespaces,
    sql_tables,
)
from airflow_provider_floe.errors import (
    CatalogUnavailable,
    ConfigurationError,
    FloeError,
    TableNotFound,
    TableUnreadable,
)
from airflow_provider_floe.tables import Operation, TableRef
from airflow_provider_floe.text import count_text

log = logging.getLogger(__name__)

_OURS = {
    "rest": "airflow_provider_floe.catalogs.rest.TimedRestCatalog",
    "hive": "airflow_provider_floe.catalogs.hive_transport.TimedHiveCatalog",
}
"""What stands for pyiceberg's catalogs of these types."""
_LISTING_THREADS = 8
_ONE_THREAD_EACH = ("hive",)
"""Types of pyiceberg's catalogs with a single connection, which two threads must not use at once."""
_NO_ANSWER = (RESTError, RequestException, SQLAlchemyError)


def connect(connection: ConnectionFields) -> CatalogClient:
    """The catalog that a connection describes. Its fields are checked now; it is reached when first used.

    :raises ConfigurationError: naming the connection, the field and the fix.
    """
    kind = kind_of(connection)
    return PyicebergCatalog(connection, kind)


class PyicebergCatalog:
    """A :class:`~airflow_provider_floe.catalogs.base.CatalogClient` over one of pyiceberg's catalogs.

    Threads share pyiceberg's catalog where its sessions and engines allow that; a forked process opens its own.

    :raises ConfigurationError: naming the connection, the field and the fix.
    """

    def __init__(self, connection: ConnectionFields, kind: CatalogKind) -> None:
        properties = kind.properties(connection)
        self.name = catalog_name(connection)
        self.kind = kind.name
        self._kind = kind
        self._connection = connection
        self._conn_id = connection.conn_id
        self._properties = properties
        self._secrets = secrets_of(connection, properties)
        self._lock = threading.Lock()
        self._opened: dict[tuple[int, int], Catalog] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.kind} at {self._server}>"

    @property
    def catalog(self) -> Catalog:
        """pyiceberg's catalog, opened when first used.

        :raises CatalogUnavailable: when it does not answer.
        """
        alone = self._properties.get("type") in _ONE_THREAD_EACH
        key = (os.getpid(), threading.get_ident() if alone else 0)
        with self._lock:
            if key not in self._opened:
                self._opened = {own: catalog for own, catalog in self._opened.items() if own[0] == key[0]}
                self._opened[key] = self._open()
            return self._opened[key]

    def namespaces(self) -> list[tuple[str, ...]]:
        """See :meth:`CatalogClient.namespaces`."""
        catalog = self.catalog
        with self._explained("its namespaces cannot be listed"):
            if isinstance(catalog, SqlCatalog):
                return sql_namespaces(catalog)
            found: set[tuple[str, ...]] = set()
            level: list[tuple[str, ...]] = [()]
            with ThreadPoolExecutor(_LISTING_THREADS, thread_name_prefix="floe-namespaces") as pool:
                while level:
                    children = pool.map(lambda parent: _children(self.catalog, parent), level)
                    level = sorted({child for some in children for child in some} - found)
                    found.update(level)
            return sorted(found)

    def tables(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> Iterator[TableRef]:
        """See :meth:`CatalogClient.tables`. A namespace that is not there (any more) has no tables."""
        catalog = self.catalog
        with self._explained("its tables cannot be listed"):
            if isinstance(catalog, SqlCatalog):
                yield from sql_tables(catalog, self.name, namespaces)
                return
            wanted = self.namespaces() if namespaces is None else list(namespaces)
            with ThreadPoolExecutor(_LISTING_THREADS, thread_name_prefix="floe-tables") as pool:
                for identifiers in pool.map(lambda namespace: _tables(self.catalog, namespace), wanted):
                    for identifier in identifiers:
                        yield TableRef(self.name, identifier[:-1], identifier[-1])

    def load(self, table: TableRef) -> Table:
        """See :meth:`CatalogClient.load`."""
        catalog = self.catalog
        where = f"connection {self._conn_id!r}"
        try:
            return catalog.load_table(table.identifier)
        except (NoSuchTableError, NoSuchNamespaceError) as error:
            raise TableNotFound(f"{table}: the catalog of {where} has no such table") from self._safe(error)
        except ForbiddenError as error:
            text = f"{table}: the credential of {where} may not load it ({self._told(error)})"
            raise TableUnreadable(text) from self._safe(error)
        except Exception as error:
            if isinstance(error, _NO_ANSWER) or is_of_metastore(error):
                raise self._unavailable(f"{table} cannot be loaded", error) from self._safe(error)
            text = f"{table}: its metadata cannot be read ({self._told(error)})"
            raise TableUnreadable(text) from self._safe(error)

    def metadata_location(self, table: TableRef) -> str | None:
        """See :meth:`CatalogClient.metadata_location`. Only SQL catalogs tell it without loading the table."""
        catalog = self.catalog
        if not isinstance(catalog, SqlCatalog):
            return None
        with self._explained(f"the metadata location of {table} cannot be read"):
            return sql_metadata_location(catalog, table)

    def cannot(self, operation: Operation) -> str | None:
        """See :meth:`CatalogClient.cannot`. A server that says that it is Nessie counts as one, whatever the kind."""
        known = self._kind.cannot(operation)
        if known is None and self.catalog.properties.get("nessie.is-nessie-catalog") == "true":
            from airflow_provider_floe.catalogs.rest_servers import NessieKind

            return NessieKind().cannot(operation)
        return known

    def describe(self) -> str:
        """See :meth:`CatalogClient.describe`."""
        started = time.monotonic()
        count = len(self.namespaces())
        milliseconds = (time.monotonic() - started) * 1000
        where = f"{self.kind} catalog {self.name!r} at {self._server}"
        found = f"{where}: {count_text(count, 'namespace')}, answered in {milliseconds:.0f} ms"
        return found if count else f"{found}; {self._if_unexpected()}"

    def _if_unexpected(self) -> str:
        """What may be wrong with a connection to a catalog that is empty."""
        catalog = self.catalog
        if isinstance(catalog, SqlCatalog) and (others := sql_catalog_names(catalog)):
            named = ", ".join(repr(name) for name in others)
            return f"its database holds rows of {named}: if that is the catalog, write so in field 'catalog_name'"
        return "if there should be some, check field 'warehouse' and what the sign-in may see"

    @property
    def _server(self) -> str:
        """Where the catalog is, without user, password and query."""
        parts = urlsplit(self._properties.get("uri", ""))
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else self._properties.get("type", "unknown")

    def _open(self) -> Catalog:
        properties = dict(self._properties)
        if ours := _OURS.get(properties.get("type", "")):
            del properties["type"]
            properties["py-catalog-impl"] = ours
        uri = properties.get("uri", "")
        if uri.startswith("sqlite:////") and not Path(uri.removeprefix("sqlite:///").partition("?")[0]).exists():
            raise CatalogUnavailable(
                f"catalog {self.name!r} of connection {self._conn_id!r}: there is no file {uri[10:]}; check its uri"
            )
        with self._explained("it cannot be reached"):
            return load_catalog(self.name, **properties)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except FloeError:
            raise
        except (NotInstalledError, NoSuchPropertyException) as error:
            text = f"connection {self._conn_id!r} is refused by pyiceberg: {self._told(error)}"
            raise ConfigurationError(text) from self._safe(error)
        except Exception as error:
            raise self._unavailable(what, error) from self._safe(error)

    def _unavailable(self, what: str, error: Exception) -> CatalogUnavailable:
        self._opened = {}  # what it learnt of the server when it opened may be wrong: open anew next time
        where = f"catalog {self.name!r} of connection {self._conn_id!r}"
        fix = without_secrets(advice(self._connection, self._properties, self._server, error), self._secrets)
        return CatalogUnavailable(f"{where}: {what} ({self._told(error)}); {fix}")

    def _told(self, error: Exception) -> str:
        """The error's first line, without secrets."""
        reason = getattr(error.args[0], "reason", None) if isinstance(error, RequestException) and error.args else None
        line = f"{type(error).__name__}: {reason or error}".partition("\n")[0]
        return without_secrets(line, self._secrets)

    def _safe(self, error: Exception) -> Exception | None:
        """The error as a cause to show in tracebacks; None where any of them holds a secret."""
        cause: BaseException | None = error
        while cause is not None:
            if without_secrets(str(cause), self._secrets) != str(cause):
                return None
            cause = cause.__cause__ or cause.__context__
        return error


def _children(catalog: Catalog, parent: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Namespaces right below ``parent``. Servers without nested ones refuse to say, or repeat what is at the top."""
    try:
        found = [tuple(name) for name in catalog.list_namespaces(parent)]
    except NoSuchNamespaceError:
        return []
    except (BadRequestError, NotImplementedError) as error:
        if not parent:
            raise
        log.info("namespaces below %s are not listed: %s", ".".join(parent), type(error).__name__)
        return []
    return [name for name in found if len(name) == len(parent) + 1 and name[: len(parent)] == parent]


def _tables(catalog: Catalog, namespace: tuple[str, ...]) -> list[tuple[str, ...]]:
    try:
        return sorted(tuple(identifier) for identifier in catalog.list_tables(namespace))
    except NoSuchNamespaceError:
        return []
