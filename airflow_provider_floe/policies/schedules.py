"""Slots: the instants at which a policy's operations fall due.

* A **cron** slot is every time of the local clock that the expression matches. A time that the clock skips fires when
  the gap ends; of a time that it shows twice the first fires, or both when the expression covers every hour.
* An **interval** slot is ``anchor + n * interval``, the anchor being 1970-01-01T00:00 on the local clock. Whole days
  are counted on the local calendar, so they stay at midnight all year; other intervals are counted in elapsed time.
* A slot outside the schedule's window or days **moves** to the next opening of the window. Slots that move to the same
  opening are one slot. A window with one end given reaches to midnight; days without a window mean whole days.

Everything that comes out is in UTC. Which slots exist depends on the schedule and the time zone alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from croniter import croniter

from airflow_provider_floe.errors import InvalidPolicy
from airflow_provider_floe.policies.clock import DAY, Window, first_instant, instants, offset_change, to_wall
from airflow_provider_floe.policies.cron import InvalidCron, unix_cron
from airflow_provider_floe.policies.model import DAY_NAMES, Policy, Schedule
from airflow_provider_floe.tables import Operation

SHORTEST_INTERVAL = timedelta(minutes=1)
LONGEST_INTERVAL = timedelta(days=3_660)
_MINUTE = timedelta(minutes=1)
_ANCHOR = datetime(1970, 1, 1)
_HOURLY = timedelta(hours=1)


class InvalidSchedule(InvalidPolicy):
    """A schedule cannot be followed.

    :ivar field: the schedule's field, by its wire name.
    :ivar value: its value.
    :ivar reason: what is wrong with it and how to write it.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field} {value!r}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class _Source(Protocol):
    """Slots before they are moved into a window."""

    def at_or_before(self, at: datetime) -> datetime: ...

    def after(self, at: datetime) -> datetime: ...


@dataclass(frozen=True, slots=True)
class _Elapsed:
    anchor: datetime
    interval: timedelta

    def at_or_before(self, at: datetime) -> datetime:
        return self.anchor + (at - self.anchor) // self.interval * self.interval

    def after(self, at: datetime) -> datetime:
        return self.at_or_before(at) + self.interval


class _Calendar:
    """Slots that are times of the local clock."""

    def __init__(self, zone: ZoneInfo, cron: str | None, days: int) -> None:
        self.zone = zone
        self.cron = cron
        self.days = days
        self.fires_twice = cron is not None and cron.split()[1] == "*"

    def at_or_before(self, at: datetime) -> datetime:
        change = offset_change(at, self.zone)
        local = to_wall(at, self.zone)
        best: datetime | None = None
        wall = self._wall_before(_whole_minute(local + change) + _MINUTE)
        while True:
            reached = [instant for instant in self._instants(wall) if instant <= at]
            best = max([*reached, best] if best else reached, default=None)
            if best is not None and wall <= local - change:
                return best
            wall = self._wall_before(wall)

    def after(self, at: datetime) -> datetime:
        change = offset_change(at, self.zone)
        local = to_wall(at, self.zone)
        best: datetime | None = None
        wall = self._wall_after(_whole_minute(local - change) - _MINUTE)
        while True:
            ahead = [instant for instant in self._instants(wall) if instant > at]
            best = min([*ahead, best] if best else ahead, default=None)
            if best is not None and wall >= local + change:
                return best
            wall = self._wall_after(wall)

    def _instants(self, wall: datetime) -> list[datetime]:
        found = instants(wall, self.zone)
        return found if self.fires_twice else found[:1]

    def _wall_before(self, wall: datetime) -> datetime:
        if self.cron is not None:
            return croniter(self.cron, wall).get_prev(datetime)  # type: ignore[no-any-return]
        return _ANCHOR + -(-(wall - _ANCHOR) // (self.days * DAY) + 1) * self.days * DAY

    def _wall_after(self, wall: datetime) -> datetime:
        if self.cron is not None:
            return croniter(self.cron, wall).get_next(datetime)  # type: ignore[no-any-return]
        return _ANCHOR + ((wall - _ANCHOR) // (self.days * DAY) + 1) * self.days * DAY


@dataclass(frozen=True, slots=True)
class SlotSchedule:
    """The slots of one schedule. Arguments are aware datetimes, results are in UTC."""

    source: _Source
    window: Window | None
    zone: ZoneInfo

    @classmethod
    def of(cls, schedule: Schedule, default_timezone: str) -> SlotSchedule:
        """The slots of a schedule; ``enabled`` and ``timeout`` play no part.

        :param default_timezone: IANA name, for a schedule that names none.
        :raises InvalidSchedule: naming field, value and the fix; also when neither interval nor cron is given.
        """
        return _slots(schedule, default_timezone)

    def latest_slot(self, at: datetime) -> datetime | None:
        """The newest slot at or before the instant, already moved into the window."""
        at = at.astimezone(UTC)
        newest = self.source.at_or_before(at)
        moved = self._moved(newest)
        if moved > at and self.window is not None:
            moved = self._moved(self.source.at_or_before(self.window.last_moment(newest)))
        return moved

    def next_slot(self, after: datetime) -> datetime:
        """The first slot strictly after the instant, already moved into the window."""
        after = after.astimezone(UTC)
        waiting = self._moved(self.source.at_or_before(after))
        return waiting if waiting > after else self._moved(self.source.after(after))

    def in_window(self, at: datetime) -> bool:
        """Whether the instant lies in the window, on an allowed day; always, when there is no window."""
        return self.window is None or self.window.contains(at.astimezone(UTC))

    def next_window(self, at: datetime) -> datetime | None:
        """When the window opens next, strictly after the instant; None when there is no window."""
        return None if self.window is None else self.window.next_opening(at.astimezone(UTC))

    def _moved(self, slot: datetime) -> datetime:
        if self.window is None or self.window.contains(slot):
            return slot
        return self.window.next_opening(slot)


@dataclass(frozen=True, slots=True)
class PolicyTicks:
    """When a policy's DAG runs: the slots of all its scheduled operations, merged.

    With ``criticalPipeline`` in the conditions of a scheduled operation also every hour, inside that operation's
    window, so that its deadline is noticed.
    """

    schedules: tuple[SlotSchedule, ...]

    @classmethod
    def of(cls, policy: Policy, default_timezone: str) -> PolicyTicks:
        """The ticks of a policy; none when it is disabled or nothing in it is scheduled.

        :raises InvalidSchedule: as :meth:`SlotSchedule.of`.
        """
        return cls.of_schedules(tick_schedules(policy), default_timezone)

    @classmethod
    def of_schedules(cls, schedules: Iterable[Schedule], default_timezone: str) -> PolicyTicks:
        """The ticks of what :func:`tick_schedules` found.

        :raises InvalidSchedule: as :meth:`SlotSchedule.of`.
        """
        return cls(tuple(SlotSchedule.of(schedule, default_timezone) for schedule in schedules))

    def next_tick(self, after: datetime) -> datetime | None:
        """The first tick strictly after the instant, UTC; None when there are no ticks."""
        return min((schedule.next_slot(after) for schedule in self.schedules), default=None)

    def latest_tick(self, at: datetime) -> datetime | None:
        """The newest tick at or before the instant, UTC; None when there is none."""
        slots = (schedule.latest_slot(at) for schedule in self.schedules)
        return max((slot for slot in slots if slot is not None), default=None)


def tick_schedules(policy: Policy) -> list[Schedule]:
    """The schedules whose slots are the policy's ticks, hourly ones of critical pipelines included."""
    found = []
    for operation, schedule in _scheduled(policy):
        found.append(schedule)
        if _is_critical(policy, operation):
            found.append(schedule.model_copy(update={"cron_expression": None, "interval": _HOURLY}))
    return found


def is_scheduled(policy: Policy, operation: Operation) -> bool:
    """Whether the operation runs by itself: settings and schedule are enabled, and the schedule says when."""
    settings, schedule = policy.settings(operation), policy.schedule(operation)
    return (
        settings is not None
        and settings.enabled
        and schedule is not None
        and schedule.enabled
        and (schedule.interval is not None or schedule.cron_expression is not None)
    )


def plain_cron(policy: Policy, default_timezone: str) -> tuple[str, str] | None:
    """Cron expression (five Unix fields) and time zone, when they say all of the policy's ticks; else None.

    :raises InvalidSchedule: as :meth:`SlotSchedule.of`.
    """
    found: set[tuple[str, str]] = set()
    for operation, schedule in _scheduled(policy):
        slots = SlotSchedule.of(schedule, default_timezone)
        if slots.window is not None or not isinstance(slots.source, _Calendar) or _is_critical(policy, operation):
            return None
        if slots.source.cron is None:
            return None
        found.add((slots.source.cron, slots.zone.key))
    return found.pop() if len(found) == 1 else None


def _scheduled(policy: Policy) -> list[tuple[Operation, Schedule]]:
    if not policy.enabled:
        return []
    pairs = [(operation, policy.schedule(operation)) for operation in Operation if is_scheduled(policy, operation)]
    return [(operation, schedule) for operation, schedule in pairs if schedule is not None]


def _is_critical(policy: Policy, operation: Operation) -> bool:
    conditions = policy.conditions(operation)
    return conditions is not None and conditions.critical_pipeline


@lru_cache(maxsize=4096)
def _slots(schedule: Schedule, default_timezone: str) -> SlotSchedule:
    zone = _zone(schedule.timezone, default_timezone)
    window = _window(schedule, zone)
    if schedule.interval is not None:
        if not SHORTEST_INTERVAL <= schedule.interval <= LONGEST_INTERVAL:
            reason = f"must be from one minute, PT1M, to ten years, P{LONGEST_INTERVAL.days}D"
            raise InvalidSchedule("interval", str(schedule.interval), reason)
        if schedule.interval % DAY:
            return SlotSchedule(_Elapsed(first_instant(_ANCHOR, zone), schedule.interval), window, zone)
        return SlotSchedule(_Calendar(zone, None, schedule.interval // DAY), window, zone)
    if schedule.cron_expression is None:
        raise InvalidSchedule("cronExpression", None, "the schedule needs an interval or a cronExpression")
    try:
        return SlotSchedule(_Calendar(zone, unix_cron(schedule.cron_expression), 0), window, zone)
    except InvalidCron as error:
        raise InvalidSchedule("cronExpression", schedule.cron_expression, str(error)) from None


def _zone(name: str | None, default: str) -> ZoneInfo:
    try:
        return ZoneInfo(default if name is None else name)
    except (OSError, ValueError, KeyError):  # ZoneInfo lets each of them through, by the kind of wrong name
        raise InvalidSchedule(
            "timezone", default if name is None else name, "is not an IANA time zone such as Europe/Zurich"
        ) from None


def _window(schedule: Schedule, zone: ZoneInfo) -> Window | None:
    days = _days(schedule.allowed_days)
    start, end = schedule.window_start or time(0), schedule.window_end or time(0)
    if schedule.window_start is None and schedule.window_end is None:
        return None if len(days) == len(DAY_NAMES) else Window(time(0), time(0), days, zone)
    if schedule.window_start == schedule.window_end:
        raise InvalidSchedule(
            "windowEnd", end.strftime("%H:%M"), "equals windowStart: leave both out when any time of day is fine"
        )
    return Window(start, end, days, zone)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(len(DAY_NAMES)))
    found = set()
    for word in text.upper().split(","):
        matching = [index for index, name in enumerate(DAY_NAMES) if word.strip() in (name, name[:3])]
        if not matching:
            raise InvalidSchedule(
                "allowedDays", text, f"{word.strip()!r} is not a day: write names such as MONDAY or MON, with commas"
            )
        found.add(matching[0])
    return frozenset(found)


def _whole_minute(wall: datetime) -> datetime:
    return wall.replace(second=0, microsecond=0)
