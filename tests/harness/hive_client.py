"""The client of the extra ``hive``, which the environment of development does without."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.environments import environment


def hive_client_packages() -> Path:
    """What ``pip install 'airflow-provider-floe[hive]'`` adds, for ``PYTHONPATH`` of another process."""
    python = environment("hive-client", ["thrift==0.25.0"])
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    return packages


def add_hive_client() -> None:
    """Let this process import ``thrift``, as after ``pip install 'airflow-provider-floe[hive]'``."""
    packages = str(hive_client_packages())
    if packages not in sys.path:
        sys.path.append(packages)
