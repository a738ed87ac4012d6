"""The plugin that registers what Airflow has to know beyond the provider's metadata."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_floe.links import FloeRecordLink
from airflow_provider_floe.timetable import FloePolicyTimetable


class FloePlugin(AirflowPlugin):
    """Timetable and operator links. Loaded in every Airflow process, so it stays light."""

    name = "floe"
    timetables: list[Any] = [FloePolicyTimetable]  # noqa: RUF012 (as Airflow declares it)
    operator_extra_links: list[Any] = [FloeRecordLink()]  # noqa: RUF012
