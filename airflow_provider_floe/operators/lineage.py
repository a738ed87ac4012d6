"""OpenLineage for the operators that change tables. Does nothing where its provider is not installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow_provider_floe import config

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_floe.airflow_events import AirflowEvents
    from airflow_provider_floe.maintenance.environment import Environment
    from airflow_provider_floe.maintenance.events import Event
    from airflow_provider_floe.tables import TableRef

log = logging.getLogger(__name__)


class LineageMixin:
    """Tells OpenLineage which tables a task changed, and what each operation did; also when the task failed."""

    _finished: Sequence[Event] = ()
    _locations: Mapping[TableRef, str] = {}

    @contextmanager
    def observed(self, env: Environment, events: AirflowEvents) -> Iterator[None]:
        """Remember what is done inside, if OpenLineage is going to ask."""
        try:
            yield
        finally:
            if config.emit_events() and _enabled():
                self._finished = tuple(events.finished)
                self._locations = _locations(env, events.changed)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Datasets and facets of what was done; None when there is nothing to tell."""
        if not self._finished:
            return None
        from airflow_provider_floe.lineage import operator_lineage

        return operator_lineage(self._finished, self._locations)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """The same: what was committed before a failure stays."""
        return self.get_openlineage_facets_on_complete(task_instance)


def _enabled() -> bool:
    """Whether the provider is installed and sends events."""
    try:
        if find_spec("airflow.providers.openlineage") is None:
            return False
        from airflow.providers.openlineage.conf import is_disabled

        return not is_disabled()
    except Exception:
        log.warning("OpenLineage cannot be used", exc_info=True)
        return False


def _locations(env: Environment, tables: Sequence[TableRef]) -> dict[TableRef, str]:
    found: dict[TableRef, str] = {}
    for table in tables:
        try:
            found[table] = env.catalog(table.catalog).load(table).location()
        except Exception as error:  # OpenLineage never fails a task
            log.warning("OpenLineage names %s by its catalog, because its location is not known: %s", table, error)
    return found
