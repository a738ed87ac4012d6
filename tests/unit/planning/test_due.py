"""A schedule held against the slot that was consumed last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from plan_builders import inputs, report, request, work

from airflow_provider_floe.planning.due import due_state
from airflow_provider_floe.planning.model import Disposition
from airflow_provider_floe.planning.planner import plan
from airflow_provider_floe.policies.model import Schedule
from airflow_provider_floe.tables import Operation

AT = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def schedule(**fields: Any) -> Schedule:
    return Schedule.model_validate({"cronExpression": "0 2 * * *", **fields})


@pytest.mark.parametrize("given", [None, schedule(enabled=False), Schedule()])
def test_without_a_schedule_an_operation_is_never_due(given: Schedule | None) -> None:
    due = due_state(given, None, AT, AT, "UTC")
    assert (due.scheduled, due.due) == (False, False)


def test_an_operation_is_due_when_its_latest_slot_is_newer_than_the_consumed_one() -> None:
    first = due_state(schedule(), None, AT, AT, "UTC")
    assert (first.due, first.latest_slot, first.first_open_slot) == (True, AT, None)
    assert due_state(schedule(), AT - DAY, AT, AT, "UTC").due
    done = due_state(schedule(), AT, AT + timedelta(hours=5), AT + timedelta(hours=5), "UTC")
    assert (done.due, done.next_slot) == (False, AT + DAY)


def test_a_run_just_before_the_slot_is_not_due_whatever_the_clock_says() -> None:
    assert not due_state(schedule(), AT - DAY, AT - timedelta(seconds=1), AT + DAY, "UTC").due


def test_missed_slots_are_answered_together_and_the_decision_says_so() -> None:
    due = due_state(schedule(), AT - 4 * DAY, AT, AT, "UTC")
    assert (due.first_open_slot, due.latest_slot) == (AT - 3 * DAY, AT)
    item = plan(request(inputs(report(works=(work(Operation.REWRITE_DATA_FILES),)), due=due))).items[0]
    assert item.disposition is Disposition.RUN
    assert item.reasons[-1] == "answers every open slot from 2026-03-07 02:00 UTC to 2026-03-10 02:00 UTC"


def test_the_window_is_asked_at_the_time_of_the_run_in_the_schedules_zone() -> None:
    windowed = schedule(windowStart="01:00", windowEnd="04:00", timezone="Europe/Zurich")
    inside = due_state(windowed, None, AT, AT, "UTC")
    assert (inside.in_window, inside.next_window_at) == (True, None)
    late = due_state(windowed, None, AT, AT + timedelta(hours=3), "UTC")
    assert (late.in_window, late.next_window_at) == (False, datetime(2026, 3, 11, 0, 0, tzinfo=UTC))


def test_the_default_time_zone_counts_where_the_schedule_names_none() -> None:
    due = due_state(schedule(), None, AT, AT, "Europe/Zurich")
    assert due.latest_slot == datetime(2026, 3, 10, 1, 0, tzinfo=UTC)
