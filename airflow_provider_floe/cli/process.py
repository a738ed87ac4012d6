"""What every command of ``airflow floe`` does around its work: exit codes, errors, where policies stand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError, FloeError

GOOD, FAILED, MISUSED = 0, 1, 2


def command(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], NoReturn]:
    """Run as Airflow's server side, so that connections made in the UI resolve; errors become exit codes."""

    @wraps(function)
    def run(args: argparse.Namespace) -> NoReturn:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        try:
            code = function(args)
        except FloeError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            code = MISUSED if isinstance(error, ConfigurationError) else FAILED
        sys.stdout.flush()
        sys.exit(code)

    return run


def policies_path(given: str | None) -> Path:
    """The file or folder given, else the deployment's.

    :raises ConfigurationError: when the one given does not exist.
    """
    if given and not Path(given).exists():
        raise ConfigurationError(f"policies: {given} does not exist: correct the path")
    return Path(given) if given else config.policies_path(beside=dags_folder() / "loader.py")


def dags_folder() -> Path:
    """``[core] dags_folder``."""
    from airflow.providers.common.compat.sdk import conf

    return Path(conf.get("core", "dags_folder")).expanduser()
