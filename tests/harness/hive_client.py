"""The client of the extra ``hive``, which the environment of development does without."""

from __future__ import annotations

import sys

from harness.environments import environment


def add_hive_client() -> None:
    """Let this process import ``thrift``, as after ``pip install 'airflow-provider-floe[hive]'``."""
    python = environment("hive-client", ["thrift==0.25.0"])
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
