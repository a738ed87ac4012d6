"""What the use cases work with: store, policies, catalogs, engines, settings, and where events go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_floe.catalogs.base import CatalogClient
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.maintenance.clock import utc_now
from airflow_provider_floe.maintenance.events import Event
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.protocols import FloeStore

log = logging.getLogger(__name__)


def log_event(event: Event) -> None:
    """One line per event on the standard logger; what ``emit`` does at the least."""
    log.log(event.level, "%s", event.message)


@dataclass(frozen=True)
class Environment:
    """A deployment, as the use cases see it.

    :ivar policies: every policy, disabled ones included; the assess task resolves over all of them.
    :ivar catalogs: by the name that policies use, in the order configured.
    :ivar engines: by name: ``local``, ``spark``, ``trino`` and registered others.
    :ivar emit: called for every event; must not raise.
    :ivar now: the clock of decisions, UTC.
    """

    store: FloeStore
    policies: tuple[Policy, ...]
    catalogs: Mapping[str, CatalogClient]
    engines: Mapping[str, Engine]
    settings: Settings = field(default_factory=Settings)
    emit: Callable[[Event], None] = log_event
    now: Callable[[], datetime] = utc_now

    def catalog(self, name: str) -> CatalogClient:
        """The catalog of that name.

        :raises ConfigurationError: naming the catalogs there are.
        """
        if name not in self.catalogs:
            known = ", ".join(self.catalogs) or "none"
            raise ConfigurationError(f"no catalog named {name!r}: configured are {known} ([floe] catalogs)")
        return self.catalogs[name]
