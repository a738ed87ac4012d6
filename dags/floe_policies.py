"""One Airflow dag for each Floe policy in ``policies/`` beside this file, or where configured."""

from __future__ import annotations

from airflow_provider_floe.dag_factory import load_policy_dags

load_policy_dags(globals())
