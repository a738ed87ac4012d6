"""Looks at DAG runs."""

from __future__ import annotations

from typing import Any


def states(dag_run: Any) -> dict[str, list[str]]:
    """States of a run's task instances, by task."""
    found: dict[str, list[str]] = {}
    for instance in dag_run.get_task_instances():
        found.setdefault(instance.task_id, []).append(str(instance.state))
    return found
