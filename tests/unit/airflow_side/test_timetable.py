from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from hypothesis import given, settings
from hypothesis import strategies as st

try:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable
except ImportError:  # before Airflow 3.2
    from airflow.serialization.serialized_objects import decode_timetable, encode_timetable

from airflow_provider_floe import timetable as module
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.timetable import FloePolicyTimetable, policy_timetable

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
START = pendulum.datetime(2025, 1, 1)


def policy(**fields):
    return Policy.model_validate({"name": "p", "tablePattern": "*", "rewriteDataFiles": {}, **fields})


def next_run(timetable, last=None, *, catchup=False, latest=None):
    info = timetable.next_dagrun_info(
        last_automated_data_interval=DataInterval.exact(pendulum.instance(last)) if last else None,
        restriction=TimeRestriction(earliest=START, latest=latest, catchup=catchup),
    )
    return info.run_after if info else None


@pytest.fixture(autouse=True)
def now(monkeypatch):
    monkeypatch.setattr(module, "_now", lambda: NOON)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"enabled": False, "rewriteDataFilesSchedule": {"interval": 1}},
        {"rewriteDataFilesSchedule": {"interval": 1, "enabled": False}},
        {"rewriteDataFiles": {"enabled": False}, "rewriteDataFilesSchedule": {"interval": 1}},
    ],
    ids=["no schedule", "disabled policy", "disabled schedule", "operation switched off"],
)
def test_nothing_scheduled_means_no_timetable(fields):
    assert policy_timetable([policy(**fields)], "UTC") is None


def test_one_plain_cron_is_airflows_own_timetable_in_the_schedules_zone():
    quartz = {"cronExpression": "0 30 2 * * ?", "timezone": "Europe/Zurich"}
    found = policy_timetable([policy(rewriteDataFilesSchedule=quartz)], "UTC")
    assert isinstance(found, CronTriggerTimetable)
    assert found.serialize()["expression"] == "30 2 * * *"
    assert found.serialize()["timezone"] == "Europe/Zurich"


def test_policies_with_the_same_cron_share_airflows_timetable():
    same = {"cronExpression": "0 3 * * *"}
    policies = [policy(rewriteDataFilesSchedule=same), policy(name="q", rewriteDataFilesSchedule=same)]
    assert isinstance(policy_timetable(policies, "UTC"), CronTriggerTimetable)


def test_it_ticks_at_the_slots_of_every_operation():
    found = policy_timetable(
        [
            policy(
                rewriteDataFilesSchedule={"interval": "PT6H"},
                expireSnapshots={},
                expireSnapshotsSchedule={"cronExpression": "30 13 * * *"},
            )
        ],
        "UTC",
    )
    runs = [next_run(found)]
    for _ in range(3):
        runs.append(next_run(found, runs[-1], catchup=True))
    assert [f"{run:%H:%M}" for run in runs] == ["12:00", "13:30", "18:00", "00:00"]


def test_a_critical_pipeline_ticks_every_hour_too():
    conditions = {"criticalPipeline": True, "criticalPipelineMaxDelayMinutes": 60}
    found = policy_timetable(
        [policy(rewriteDataFilesSchedule={"cronExpression": "0 0 * * *"}, triggerConditions=conditions)], "UTC"
    )
    assert isinstance(found, FloePolicyTimetable)
    assert next_run(found, NOON) == NOON + timedelta(hours=1)


def test_after_an_outage_it_runs_once_for_the_latest_slot():
    found = FloePolicyTimetable([{"interval": "PT1H"}])
    assert next_run(found, NOON - timedelta(days=3)) == NOON
    assert next_run(found, NOON) == NOON + timedelta(hours=1)


def test_with_catchup_it_runs_every_slot():
    found = FloePolicyTimetable([{"interval": "PT1H"}])
    assert next_run(found, NOON - timedelta(days=3), catchup=True) == NOON - timedelta(days=3) + timedelta(hours=1)
    assert next_run(found, catchup=True) == START


def test_nothing_runs_after_the_dags_end():
    found = FloePolicyTimetable([{"interval": "PT1H"}])
    assert next_run(found, NOON, latest=pendulum.instance(NOON)) is None


def test_a_slot_outside_the_window_moves_to_its_start():
    found = FloePolicyTimetable([{"interval": 1, "windowStart": "22:00", "windowEnd": "04:00"}], timezone="UTC")
    assert next_run(found, NOON) == datetime(2026, 3, 3, 0, 0, tzinfo=UTC)
    afternoon = FloePolicyTimetable([{"cronExpression": "0 15 * * *", "windowStart": "22:00", "windowEnd": "04:00"}])
    assert next_run(afternoon, NOON) == datetime(2026, 3, 2, 22, 0, tzinfo=UTC)


def test_it_survives_airflows_serialisation():
    found = FloePolicyTimetable(
        [{"interval": "PT6H", "allowedDays": "MONDAY"}, {"cronExpression": "5 4 * * *"}], timezone="Asia/Tokyo"
    )
    again = decode_timetable(encode_timetable(found))
    assert isinstance(again, FloePolicyTimetable)
    assert again.serialize() == found.serialize()
    assert next_run(again, NOON) == next_run(found, NOON)
    assert found.summary == "every PT6H, 5 4 * * *"


@settings(max_examples=50, deadline=None)
@given(
    minutes=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
    back=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_runs_follow_one_another_and_never_lag_behind_the_latest_slot(minutes, back):
    found = FloePolicyTimetable([{"interval": f"PT{count}M"} for count in minutes])
    last = NOON - back
    run = module._plain(next_run(found, last))
    assert run > last
    latest = found._ticks.latest_tick(NOON)
    assert run >= latest
    assert found._ticks.latest_tick(run) == run  # it is a slot
    assert run == latest or found._ticks.next_tick(last) == run  # and none between was passed over
