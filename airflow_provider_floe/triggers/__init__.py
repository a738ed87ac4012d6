"""Triggers: what Airflow's triggerer watches for tasks that gave up their workers."""
