"""The hook of connection type ``floe``: an Iceberg catalog."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_floe.catalogs.base import CatalogClient

ACCEPTED_TYPES = ("floe", "iceberg")


class FloeHook(BaseHook):
    """Connects to the Iceberg catalog that an Airflow connection describes.

    :param catalog_conn_id: id of a connection of type ``floe`` or ``iceberg``.
    """

    conn_name_attr = "catalog_conn_id"
    default_conn_name = "floe_default"
    conn_type = "floe"
    hook_name = "Iceberg catalog (Floe)"

    def __init__(self, catalog_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.catalog_conn_id = catalog_conn_id

    @cached_property
    def fields(self) -> ConnectionFields:
        """The connection's fields.

        :raises ConfigurationError: when the connection does not exist or is of another type.
        """
        return connection_fields(self.catalog_conn_id)

    @cached_property
    def catalog(self) -> CatalogClient:
        """The catalog's client; it connects when it is first used.

        :raises ConfigurationError: naming the connection, the field and the fix.
        """
        from airflow_provider_floe.catalogs.client import connect

        return connect(self.fields)

    def get_conn(self) -> CatalogClient:
        """The catalog's client."""
        return self.catalog

    def test_connection(self) -> tuple[bool, str]:
        """What the Test button shows: whether the catalog answered, and what it is or what to check."""
        try:
            return True, self.catalog.describe()
        except Exception as error:
            return False, str(error) or type(error).__name__


def connection_fields(conn_id: str) -> ConnectionFields:
    """Read an Airflow connection.

    :raises ConfigurationError: when it does not exist or is of another type.
    """
    connection = find_connection(conn_id)
    if connection.conn_type not in ACCEPTED_TYPES:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type!r}: a catalog needs a connection of type "
            f"{' or '.join(ACCEPTED_TYPES)}"
        )
    return ConnectionFields(
        conn_id=conn_id,
        conn_type=connection.conn_type,
        host=connection.host,
        port=connection.port,
        login=connection.login,
        password=connection.password,
        schema=connection.schema,
        extra=_extra(connection),
    )


def find_connection(conn_id: str) -> Connection:
    """Look a connection up in the secrets backends.

    :raises ConfigurationError: when there is none of that id.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"there is no connection {conn_id!r}: add it in the UI, with `airflow connections add {conn_id}`, or as "
            f"AIRFLOW_CONN_{conn_id.upper()}"
        ) from error


def _extra(connection: Connection) -> dict[str, Any]:
    try:
        return dict(connection.extra_dejson)
    except ValueError as error:
        raise ConfigurationError(f"connection {connection.conn_id!r}: its extra is not JSON: {error}") from error
