"""Shows policies that cannot be loaded as an import error in Airflow, while the dags of the good ones stay active."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import raise_policy_errors

raise_policy_errors()
