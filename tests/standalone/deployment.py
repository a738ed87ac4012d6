"""What the tests under a real Airflow share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.airflow_standalone import Standalone
from measure import TableState, measure
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_floe.stores.protocols import FloeStore

LEASE_SECONDS = 12


@dataclass(frozen=True)
class Deployment:
    """A running Airflow and what it maintains.

    :ivar lake: the demo's lakehouse, and a table that only a disabled policy matches.
    :ivar before: its tables before any run.
    :ivar slow: a catalog whose writes a test can hold up; see ``slow_io.py``.
    :ivar brakes: where ``slow_io.py`` looks.
    """

    airflow: Standalone
    lake: SqlCatalog
    before: dict[str, TableState]
    slow: SqlCatalog
    brakes: Path
    store: FloeStore

    def states(self) -> dict[str, TableState]:
        """The lakehouse's tables as they are now."""
        return {state.name: state for state in measure(self.lake)}
