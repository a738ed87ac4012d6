"""The policy document: model, patterns, schedules, loading, resolution. No Airflow, no I/O but reading files."""
