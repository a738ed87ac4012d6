"""Where the tables of a catalog keep their files, for the overlap check before orphans are removed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_floe.engines.base import TableLocation
from airflow_provider_floe.errors import FloeError, TableNotFound
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.tables import TableRef

PATH_PROPERTIES = ("write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path")


class TableLocations:
    """Locations of all tables of one catalog, read once for one execute task."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._by_catalog: dict[str, tuple[TableLocation, ...]] = {}

    def others(self, table: TableRef) -> Sequence[TableLocation]:
        """Locations of every other table of the catalog.

        :raises CatalogUnavailable: when the tables cannot be listed.
        """
        if table.catalog not in self._by_catalog:
            refs = list(self._env.catalog(table.catalog).tables())
            with ThreadPoolExecutor(self._env.settings.assess_threads) as pool:
                found = [location for location in pool.map(self._locate, refs) if location is not None]
            self._by_catalog[table.catalog] = tuple(found)
        return [location for location in self._by_catalog[table.catalog] if location.table != table]

    def _locate(self, ref: TableRef) -> TableLocation | None:
        try:
            table = self._env.catalog(ref.catalog).load(ref)
        except TableNotFound:
            return None
        except FloeError:
            return TableLocation(ref, None, self._last_known(ref))
        prefixes = [table.location(), *(table.properties[key] for key in PATH_PROPERTIES if key in table.properties)]
        return TableLocation(ref, str(table.metadata.table_uuid), tuple(prefixes))

    def _last_known(self, ref: TableRef) -> tuple[str, ...]:
        """What is known of a table that cannot be loaded: its metadata file's folder and its last health report."""
        known = []
        metadata_location = self._env.catalog(ref.catalog).metadata_location(ref)
        if metadata_location and "/metadata/" in metadata_location:
            known.append(metadata_location.rpartition("/metadata/")[0])
        report = self._env.store.latest_report(ref)
        if report is not None:
            known.append(report.facts.location)
            known += [report.facts.properties[key] for key in PATH_PROPERTIES if key in report.facts.properties]
        return tuple(known)
