"""Reads the ``[floe]`` section of Airflow's configuration."""

from __future__ import annotations

import os
import re
from pathlib import Path

from airflow.providers.common.compat.sdk import conf
from pydantic import ValidationError

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.maintenance.settings import Settings

SECTION = "floe"


def option(name: str) -> str | None:
    """The text of an option; None when it is unset or empty."""
    text = conf.get(SECTION, name, fallback=None)
    return text.strip() or None if text is not None else None


def read_settings() -> Settings:
    """Every setting of a deployment.

    :raises ConfigurationError: naming the option, its value and what is allowed.
    """
    given: dict[str, object] = {name: text for name in Settings.model_fields if (text := option(name)) is not None}
    given.setdefault("default_timezone", _airflow_timezone())
    weights = given.pop("score_weights", None)
    try:
        if weights is not None:
            parsed = Settings.model_validate_json(f'{{"score_weights": {weights}}}')
            given["score_weights"] = parsed.score_weights
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "score_weights"
        value = weights if name == "score_weights" else given.get(name)
        raise ConfigurationError(
            f"[{SECTION}] {name} = {value!r} is not valid: {first['msg']} "
            f"(set it in airflow.cfg or as AIRFLOW__FLOE__{name.upper()})"
        ) from error


def default_timezone() -> str:
    """Time zone of schedules that name none: ``[floe] default_timezone``, else Airflow's own."""
    return option("default_timezone") or _airflow_timezone()


def catalog_conn_ids() -> tuple[str, ...]:
    """``[floe] catalogs``: ids of the connections that policies range over, in the order configured."""
    text = option("catalogs") or ""
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


def schedule_policies() -> bool:
    """``[floe] schedule_policies``: False sets every policy DAG's schedule to None."""
    return flag("schedule_policies", True)


def policies_in_store() -> bool:
    """``[floe] policies_in_store``: whether rows of the Floe store are policies too."""
    return flag("policies_in_store", False)


def emit_events() -> bool:
    """``[floe] emit_events``: whether asset events and OpenLineage facets are emitted."""
    return flag("emit_events", True)


def flag(name: str, default: bool) -> bool:
    """A true-or-false option.

    :raises ConfigurationError: naming the option and its value.
    """
    text = (option(name) or str(default)).lower()
    if text in ("true", "t", "1", "yes", "on"):
        return True
    if text in ("false", "f", "0", "no", "off"):
        return False
    raise ConfigurationError(f"[{SECTION}] {name} = {text!r} is not valid: write True or False")


def pool() -> str:
    """The pool that policy DAGs' tasks run in."""
    return option("pool") or "default_pool"


def policies_path(beside: str | os.PathLike[str]) -> Path:
    """Where policies are read from: ``[floe] policies_path``, else ``policies`` beside a DAG file.

    :param beside: the DAG file; a relative ``policies_path`` is relative to its folder.
    """
    folder = Path(beside).absolute().parent  # unresolved: mounted files are links to elsewhere
    return folder / Path(option("policies_path") or "policies").expanduser()


def airflow_home() -> Path:
    """Airflow's home folder."""
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()


def executor_that_spans_hosts() -> str | None:
    """The name of a configured executor whose tasks run on other hosts; None when there is none."""
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        return "KubernetesExecutor"
    configured = conf.get("core", "executor", fallback=None) or "LocalExecutor"
    for entry in configured.replace(";", ",").split(","):  # team=alias:module.Class
        name = re.split(r"[=:.]", entry)[-1].strip()
        if name and name != "LocalExecutor":
            return name
    return None


def _airflow_timezone() -> str:
    name = conf.get("core", "default_timezone", fallback="utc")
    if name.lower() == "utc":
        return "UTC"
    if name.lower() == "system":
        import pendulum

        return str(pendulum.now().timezone_name)
    return str(name)
