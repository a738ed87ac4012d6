"""The Airflow dag that maintains the one table which the trigger form, or the run's conf, names."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import table_maintenance_dag

dag = table_maintenance_dag()
