"""Shows Floe policies that cannot be loaded as an import error; the dags of good ones stay in Airflow."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import raise_policy_errors

raise_policy_errors()
