"""Cron in both dialects, intervals, windows and days, in time zones whose clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_floe.policies.cron import InvalidCron, unix_cron
from airflow_provider_floe.policies.model import DAY_NAMES, Policy, Schedule
from airflow_provider_floe.policies.schedules import (
    InvalidSchedule,
    PolicyTicks,
    SlotSchedule,
    is_scheduled,
    plain_cron,
)
from airflow_provider_floe.tables import Operation

ZURICH = "Europe/Zurich"  # clocks change on 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00
ZONES = (
    "UTC",
    ZURICH,
    "America/New_York",
    "America/Havana",  # changes at midnight
    "America/Sao_Paulo",
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # skipped 2011-12-30
    "Asia/Kathmandu",
    "America/St_Johns",  # changed at 00:01
)
CHANGES = [
    datetime(2026, 3, 29),
    datetime(2026, 10, 25),
    datetime(2011, 12, 30),
    datetime(2010, 11, 7),
    datetime(2017, 10, 15),
]


def slots(timezone: str = "UTC", **fields: Any) -> SlotSchedule:
    return SlotSchedule.of(Schedule(**fields), timezone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(schedule: SlotSchedule, after: datetime, count: int) -> list[str]:
    found = []
    for _ in range(count):
        after = schedule.next_slot(after)
        found.append(after.strftime("%m-%d %H:%M"))
    return found


# --- cron dialects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "unix"),
    [
        ("*/15 9-17 * * 1-5", "*/15 9-17 * * 1-5"),
        ("0 3 * * SUN", "0 3 * * 0"),
        ("0 3 * * FRI-MON", "0 3 * * 0,1,5,6"),
        ("5/15 * * * *", "5,20,35,50 * * * *"),
        ("@daily", "0 0 * * *"),
        ("0 0 2 * * ?", "0 2 * * *"),
        ("0 0 2 ? * 2-6", "0 2 * * 1,2,3,4,5"),
        ("0 0 2 ? * SAT *", "0 2 * * 6"),
        ("0 0/30 8-10 1 JAN-MAR ?", "0,30 8-10 1 1,2,3 *"),
        ("0 15 22-2 * * ?", "15 0,1,2,22,23 * * *"),
        ("0 0 0-23 * * ?", "0 * * * *"),
    ],
)
def test_both_dialects_become_unix_fields(expression: str, unix: str) -> None:
    assert unix_cron(expression) == unix


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("0 0 L * *", r"L \(last\)"),
        ("0 0 2 L * ?", r"L \(last\)"),
        ("0 0 2 ? * 6L", r"L \(last\)"),
        ("0 0 2 15W * ?", r"W \(nearest weekday\)"),
        ("0 0 2 ? * MON#1", r"# \(n-th weekday\)"),
        ("30 0 2 * * ?", "seconds are '30'"),
        ("* 0 2 * * ?", "seconds are"),
        ("0 0 2 * * ? 2026", "the year is '2026'"),
        ("0 0 2 1 * MON", r"Quartz wants \?"),
        ("0 0 2 ? * 0", "not within 1 to 7"),
        ("0 0 31 2 *", "no date ever"),
        ("61 * * * *", "not within 0 to 59"),
        ("*/0 * * * *", "step"),
        ("0 0 * *", "4 fields"),
        ("R * * * *", "neither a number nor a name"),
        ("@reboot", "not one of"),
    ],
)
def test_cron_that_cannot_be_followed_is_refused_by_name(expression: str, says: str) -> None:
    with pytest.raises(InvalidCron, match=says):
        unix_cron(expression)


@pytest.mark.property
@given(st.text("0123456789*/,-LW#?ADFIMNORSTUE @", max_size=24))
def test_any_cron_text_is_translated_or_refused(text: str) -> None:
    try:
        unix = unix_cron(text)
    except InvalidCron:
        return
    assert croniter(unix, datetime(2026, 1, 1)).get_next(datetime) > datetime(2026, 1, 1)
    assert unix_cron(unix) == unix


# --- slots on local clocks -------------------------------------------------------------------------------------------


def test_cron_follows_the_local_clock_through_both_changes() -> None:
    daily = slots(ZURICH, cron_expression="30 2 * * *")
    # 02:30 does not exist on March 29: it fires when the gap ends, at 03:00 summer time.
    assert following(daily, utc("2026-03-28T00:00"), 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    # 02:30 exists twice on October 25: the first one fires.
    assert following(daily, utc("2026-10-24T02:00"), 2) == ["10-25 00:30", "10-26 01:30"]
    assert daily.latest_slot(utc("2026-10-25T01:10")) == utc("2026-10-25T00:30")


def test_cron_of_every_hour_fires_in_the_hour_that_is_repeated() -> None:
    half_hours = slots(ZURICH, cron_expression="*/30 * * * *")
    expected = ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]
    assert following(half_hours, utc("2026-10-24T23:30"), 5) == expected


def test_intervals_of_whole_days_stay_at_local_midnight_and_others_elapse() -> None:
    assert following(slots(ZURICH, interval=1), utc("2026-03-28T12:00"), 3) == [
        "03-28 23:00",
        "03-29 22:00",
        "03-30 22:00",
    ]
    assert following(slots(ZURICH, interval="PT6H"), utc("2026-03-28T20:00"), 3) == [
        "03-28 23:00",
        "03-29 05:00",
        "03-29 11:00",
    ]
    assert slots(interval=7).latest_slot(utc("1970-01-08T00:00")) == utc("1970-01-08T00:00")
    assert slots(interval=7).latest_slot(utc("1970-01-07T23:59")) == utc("1970-01-01T00:00")


def test_interval_wins_over_cron() -> None:
    assert following(slots(interval=1, cron_expression="0 5 * * *"), utc("2026-01-01T03:00"), 1) == ["01-02 00:00"]


def test_a_slot_outside_the_window_moves_to_its_next_opening_and_merges() -> None:
    nightly = slots(interval="PT1H", window_start="22:00", window_end="00:30")
    assert following(nightly, utc("2026-05-01T12:00"), 5) == [
        "05-01 22:00",
        "05-01 23:00",
        "05-02 00:00",
        "05-02 22:00",
        "05-02 23:00",
    ]
    assert nightly.latest_slot(utc("2026-05-02T21:59")) == utc("2026-05-02T00:00")


def test_days_belong_to_the_day_on_which_the_window_opened() -> None:
    friday = slots(interval=1, window_start="22:00", window_end="04:00", allowed_days="FRI")
    assert friday.in_window(utc("2026-05-01T23:00"))  # a Friday
    assert friday.in_window(utc("2026-05-02T03:59"))  # Saturday morning
    assert not friday.in_window(utc("2026-05-02T04:00"))
    assert not friday.in_window(utc("2026-05-01T03:00"))  # Friday morning belongs to Thursday
    # Friday's midnight slot waits for the evening; Saturday's lies in that same window.
    assert following(friday, utc("2026-04-30T12:00"), 3) == ["05-01 22:00", "05-02 00:00", "05-08 22:00"]
    assert friday.next_window(utc("2026-05-01T22:00")) == utc("2026-05-08T22:00")


def test_a_window_that_the_clock_skips_does_not_open_that_day() -> None:
    skipped = slots(ZURICH, cron_expression="15 2 * * *", window_start="02:00", window_end="03:00")
    assert following(skipped, utc("2026-03-28T00:00"), 3) == ["03-28 01:15", "03-30 00:00", "03-30 00:15"]


def test_days_without_window_are_whole_days_and_one_ended_windows_reach_midnight() -> None:
    mondays = slots(cron_expression="0 12 * * *", allowed_days="Monday")
    assert following(mondays, utc("2026-05-01T00:00"), 3) == ["05-04 00:00", "05-04 12:00", "05-11 00:00"]
    assert slots(interval=1, window_start="22:00").in_window(utc("2026-05-01T23:59"))
    assert not slots(interval=1, window_start="22:00").in_window(utc("2026-05-01T00:00"))
    assert slots(interval=1, window_end="06:00").in_window(utc("2026-05-01T00:00"))
    assert slots(interval=1).next_window(utc("2026-05-01T00:00")) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"interval": 1, "timezone": "Europe/Zurch"}, "timezone"),
        ({"interval": 1, "timezone": "../etc"}, "timezone"),
        ({"interval": 1, "allowed_days": "MON,TUSDAY"}, "allowedDays"),
        ({"interval": 1, "window_start": "02:00", "window_end": "02:00"}, "windowEnd"),
        ({"interval": "PT1S"}, "interval"),
        ({"interval": 10_000}, "interval"),
        ({"cron_expression": "0 0 L * *"}, "cronExpression"),
        ({"window_start": "02:00"}, "cronExpression"),
    ],
)
def test_a_schedule_that_cannot_be_followed_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        slots(**fields)
    assert caught.value.field == field


CRONS = st.one_of(
    st.sampled_from(["*/7 * * * *", "30 * * * *", "0 */6 * * *", "15,45 * * * SUN", "0 0 1 * *", "30 2 29 2 *"]),
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
)
TIMES = st.builds(time, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 59]))
WHEN = st.one_of(
    st.fixed_dictionaries({"cron_expression": CRONS}),
    st.fixed_dictionaries(
        {"interval": st.one_of(st.integers(1, 40), st.sampled_from(["PT1M", "PT15M", "PT6H", "PT36H", "P1DT1M"]))}
    ),
)
WHERE = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "window_start": TIMES,
            "window_end": TIMES,
            "allowed_days": st.sets(st.sampled_from(DAY_NAMES), min_size=1).map(",".join),
        },
    ),
).filter(lambda fields: "window_start" not in fields or fields["window_start"] != fields.get("window_end"))
SCHEDULES = st.builds(lambda when, where, zone: slots(zone, **when, **where), WHEN, WHERE, st.sampled_from(ZONES))
INSTANTS = st.one_of(
    st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1)),
    st.builds(
        lambda change, minutes: change + timedelta(minutes=minutes), st.sampled_from(CHANGES), st.integers(-2000, 2000)
    ),
).map(lambda at: at.replace(tzinfo=UTC))


@pytest.mark.property
@settings(deadline=None)
@given(SCHEDULES, INSTANTS)
def test_slots_lie_in_the_window_and_the_two_directions_agree(schedule: SlotSchedule, at: datetime) -> None:
    coming, newest = schedule.next_slot(at), schedule.latest_slot(at)
    assert coming > at
    assert newest is not None
    assert newest <= at
    assert schedule.in_window(coming)
    assert schedule.in_window(newest)
    assert schedule.latest_slot(coming) == coming
    assert schedule.latest_slot(newest) == newest
    assert schedule.next_slot(newest) == coming, "there is no slot between the newest and the next one"
    assert schedule.latest_slot(coming - timedelta(microseconds=1)) == newest


@pytest.mark.property
@settings(deadline=None)
@given(SCHEDULES, INSTANTS, st.timedeltas(timedelta(0), timedelta(days=9)))
def test_later_instants_have_later_slots(schedule: SlotSchedule, at: datetime, later: timedelta) -> None:
    one, other = schedule.latest_slot(at), schedule.latest_slot(at + later)
    assert one is not None
    assert other is not None
    assert one <= other
    assert schedule.next_slot(at) <= schedule.next_slot(at + later)


@pytest.mark.property
@settings(deadline=None)
@given(SCHEDULES, INSTANTS)
def test_the_next_window_is_the_first_instant_at_which_one_opens(schedule: SlotSchedule, at: datetime) -> None:
    opens = schedule.next_window(at)
    if opens is None:
        assert schedule.in_window(at)
        return
    assert opens > at
    assert schedule.in_window(opens)
    if not schedule.in_window(at):
        assert not schedule.in_window(opens - timedelta(microseconds=1))
        middle = at + (opens - at) / 2
        assert not schedule.in_window(middle)


@pytest.mark.property
@settings(deadline=None)
@given(TIMES, TIMES, st.sets(st.integers(0, 6), min_size=1), INSTANTS)
def test_the_window_is_what_the_clock_says_where_clocks_do_not_change(
    start: time, end: time, days: set[int], at: datetime
) -> None:
    if start == end:
        return
    names = ",".join(DAY_NAMES[day] for day in sorted(days))
    schedule = slots("Asia/Kathmandu", interval=1, window_start=start, window_end=end, allowed_days=names)
    local = at.astimezone(ZoneInfo("Asia/Kathmandu"))
    clock = local.time()
    if start < end:
        expected = start <= clock < end and local.weekday() in days
    elif clock >= start:
        expected = local.weekday() in days
    else:
        expected = clock < end and (local.weekday() - 1) % 7 in days
    assert schedule.in_window(at) is expected


QUARTERS = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))


@pytest.mark.property
@settings(deadline=None, max_examples=25)
@given(QUARTERS, QUARTERS, st.sampled_from(ZONES), st.sampled_from(CHANGES))
def test_no_slot_is_lost_and_none_invented(start: time, end: time, zone: str, change: datetime) -> None:
    """Against a model that walks the clock in quarters of an hour through four days."""
    if start == end:
        return
    schedule = slots(zone, interval="PT45M", window_start=start, window_end=end)
    first = change.replace(tzinfo=UTC) - timedelta(days=2)
    quarters = [first + timedelta(minutes=15 * number) for number in range(4 * 96)]
    anchor = datetime(1970, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    expected, waiting = [], False
    for quarter in quarters:
        waiting = waiting or (quarter - anchor) % timedelta(minutes=45) == timedelta(0)
        if waiting and schedule.in_window(quarter):
            expected.append(quarter)
            waiting = False
    found, at = [], first - timedelta(microseconds=1)
    while (at := schedule.next_slot(at)) <= quarters[-1]:
        found.append(at)
    assert found[1:] == [slot for slot in expected if found and slot > found[0]]


@pytest.mark.property
@settings(deadline=None)
@given(CRONS, INSTANTS)
def test_in_utc_cron_slots_are_croniters(cron: str, at: datetime) -> None:
    naive = at.replace(tzinfo=None)
    assert slots(cron_expression=cron).next_slot(at) == croniter(cron, naive).get_next(datetime).replace(tzinfo=UTC)


# --- a policy's ticks ------------------------------------------------------------------------------------------------


def policy(**fields: Any) -> Policy:
    return Policy(name="p", table_pattern="*", **fields)


def test_ticks_merge_the_schedules_of_all_scheduled_operations() -> None:
    ticks = PolicyTicks.of(
        policy(
            rewrite_data_files={},
            rewrite_data_files_schedule={"cronExpression": "0 */6 * * *"},
            expire_snapshots={},
            expire_snapshots_schedule={"cronExpression": "30 4 * * *"},
            rewrite_manifests={"enabled": False},
            rewrite_manifests_schedule={"cronExpression": "1 1 * * *"},
            orphan_cleanup={},
            orphan_cleanup_schedule={"cronExpression": "2 2 * * *", "enabled": False},
        ),
        "UTC",
    )
    assert ticks.next_tick(utc("2026-01-01T00:00")) == utc("2026-01-01T04:30")
    assert ticks.next_tick(utc("2026-01-01T04:30")) == utc("2026-01-01T06:00")
    assert ticks.latest_tick(utc("2026-01-01T05:00")) == utc("2026-01-01T04:30")


def test_a_critical_pipeline_also_ticks_hourly_but_only_inside_its_window() -> None:
    ticks = PolicyTicks.of(
        policy(
            rewrite_data_files={},
            rewrite_data_files_schedule={"interval": 1, "windowStart": "20:00", "windowEnd": "22:00"},
            trigger_conditions={"criticalPipeline": True},
        ),
        "UTC",
    )
    found, at = [], utc("2026-01-01T12:00")
    for _ in range(3):
        tick = ticks.next_tick(at)
        assert tick is not None
        found.append(tick.strftime("%d %H:%M"))
        at = tick
    assert found == ["01 20:00", "01 21:00", "02 20:00"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"enabled": False, "rewrite_data_files": {}, "rewrite_data_files_schedule": {"interval": 1}},
        {"rewrite_data_files_schedule": {"interval": 1}},
        {"rewrite_data_files": {}, "rewrite_data_files_schedule": {"timeout": 3}},
    ],
)
def test_what_is_not_scheduled_has_no_ticks(fields: dict[str, Any]) -> None:
    ticks = PolicyTicks.of(policy(**fields), "UTC")
    assert ticks.next_tick(utc("2026-01-01T00:00")) is None
    assert ticks.latest_tick(utc("2026-01-01T00:00")) is None
    assert plain_cron(policy(**fields), "UTC") is None


def test_a_policy_of_one_plain_cron_says_so() -> None:
    cron = {"cronExpression": "0 0 3 * * ?", "timezone": ZURICH}
    both = {"rewrite_data_files": {}, "rewrite_data_files_schedule": cron, "expire_snapshots": {}}
    assert plain_cron(policy(**both, expire_snapshots_schedule=cron), "UTC") == ("0 3 * * *", ZURICH)
    assert plain_cron(policy(**both), "UTC") == ("0 3 * * *", ZURICH)
    assert is_scheduled(policy(**both), Operation.REWRITE_DATA_FILES)
    assert not is_scheduled(policy(**both), Operation.EXPIRE_SNAPSHOTS)


@pytest.mark.parametrize(
    "other",
    [
        {"expire_snapshots_schedule": {"cronExpression": "0 3 * * *", "timezone": "Asia/Kathmandu"}},
        {"expire_snapshots_schedule": {"cronExpression": "0 4 * * *"}},
        {"expire_snapshots_schedule": {"cronExpression": "0 3 * * *", "windowEnd": "04:00"}},
        {"expire_snapshots_schedule": {"interval": 1}},
        {"trigger_conditions": {"criticalPipeline": True}},
    ],
)
def test_a_policy_of_more_than_one_plain_cron_needs_its_own_timetable(other: dict[str, Any]) -> None:
    mixed = policy(
        rewrite_data_files={}, rewrite_data_files_schedule={"cronExpression": "0 3 * * *"}, expire_snapshots={}, **other
    )
    assert plain_cron(mixed, "UTC") is None
