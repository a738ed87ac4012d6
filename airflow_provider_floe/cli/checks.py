"""Checks of a deployment: policies, store, catalogs, engines; each with what it is or what to fix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from airflow_provider_floe import config
from airflow_provider_floe.airflow_catalogs import open_catalogs
from airflow_provider_floe.airflow_environment import open_engines, open_floe_store
from airflow_provider_floe.catalogs.base import CatalogClient
from airflow_provider_floe.engines.base import Engine
from airflow_provider_floe.errors import FloeError, InvalidPolicy
from airflow_provider_floe.policy_rows import read_rows
from airflow_provider_floe.policy_source import load_path


def run_checks(policies: Path) -> list[dict[str, str]]:
    """One row for each thing checked: what, whether it is ok (``yes`` or ``no``), detail."""
    rows = [
        _row("configuration", _configuration),
        _row("policies", lambda: _policies(policies)),
        _row("store", _store),
    ]
    catalogs: dict[str, CatalogClient] = {}
    rows.append(_row("catalogs", lambda: _list_catalogs(catalogs)))
    rows += [_row(f"catalog {name}", client.describe) for name, client in catalogs.items()]
    engines: dict[str, Engine] = {}
    rows.append(_row("engines", lambda: _list_engines(engines)))
    rows += [_row(f"engine {name}", partial(_engine, engine)) for name, engine in engines.items()]
    return rows


def _row(what: str, look: Callable[[], str]) -> dict[str, str]:
    try:
        return {"what": what, "ok": "yes", "detail": look()}
    except FloeError as error:
        return {"what": what, "ok": "no", "detail": str(error)}
    except Exception as error:  # of a library: the user sees what it said
        return {"what": what, "ok": "no", "detail": f"{type(error).__name__}: {error}"}


def _configuration() -> str:
    changed = config.read_settings().model_dump(mode="json", exclude_defaults=True)
    return ", ".join(f"{name} = {value}" for name, value in changed.items()) or "all settings at their defaults"


def _policies(path: Path) -> str:
    rows = read_rows()
    found = load_path(path, rows)
    if found.problems:
        raise InvalidPolicy("; ".join(str(problem) for problem in found.problems))
    enabled = sum(policy.enabled for policy in found.all)
    place = f"{path} and {len(rows)} rows of the Floe store" if config.policies_in_store() else path
    return f"{enabled} enabled, {len(found.all) - enabled} disabled, in {place}"


def _store() -> str:
    store = open_floe_store()
    try:
        store.schema_version()
        return store.describe()
    finally:
        store.close()


def _list_catalogs(into: dict[str, CatalogClient]) -> str:
    into.update(open_catalogs(config.catalog_conn_ids()))
    return ", ".join(into)


def _list_engines(into: dict[str, Engine]) -> str:
    into.update(open_engines(config.read_settings()))
    return ", ".join(into)


def _engine(engine: Engine) -> str:
    found = engine.probe()
    able = [operation.value for operation, capability in found.operations.items() if capability.supported]
    return f"version {found.version}: {', '.join(able)}"
