"""Local clocks: what instant a wall-clock time stands for, and the daily windows of a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
_AROUND = timedelta(hours=26)
_TICK = timedelta(microseconds=1)
_HORIZON_DAYS = 22
"""Looks at least two weeks ahead: one week holds an allowed day, and a time zone may have skipped that very day."""


def to_wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clock in the zone shows, as a naive time."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """When the clock shows that time, UTC: once; twice where it is set back; where it skips it, the end of the gap."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first < second:
        return [first, second]
    return [_gap_end(second, first, zone)] if second < first else [first]


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clock first reaches or passes that time, UTC."""
    return instants(wall, zone)[0]


def offset_change(at: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the zone's offset changes around the instant; zero nearly always."""
    offsets = [(at + shift).astimezone(zone).utcoffset() or timedelta(0) for shift in (-_AROUND, timedelta(0), _AROUND)]
    return max(offsets) - min(offsets)


def _gap_end(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant, to the second, at which the zone's offset changes between two instants."""
    offset = before.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


@dataclass(frozen=True, slots=True)
class Window:
    """Daily hours and days. The window of a day opens when the local clock first reaches ``start`` on that day and
    closes when it first reaches ``end``, on the next day when ``end`` is not after ``start``.

    :ivar days: days of the week, 0 = Monday, on which a window opens; one that crosses midnight belongs to the day on
        which it opened.
    """

    start: time
    end: time
    days: frozenset[int]
    zone: ZoneInfo

    def _on(self, day: date) -> tuple[datetime, datetime] | None:
        if day.weekday() not in self.days:
            return None
        last = day if self.end > self.start else day + DAY
        opens = first_instant(datetime.combine(day, self.start), self.zone)
        closes = first_instant(datetime.combine(last, self.end), self.zone)
        return (opens, closes) if opens < closes else None  # hours that the clock skips are no window

    def _around(self, at: datetime, before: int, after: int) -> Iterator[tuple[datetime, datetime]]:
        today = to_wall(at, self.zone).date()
        for shift in range(-before, after + 1):
            found = self._on(today + shift * DAY)
            if found is not None:
                yield found

    def contains(self, at: datetime) -> bool:
        """Whether the instant lies in a window; the closing instant does not."""
        return any(opens <= at < closes for opens, closes in self._around(at, 2, 1))

    def next_opening(self, at: datetime) -> datetime:
        """When the next window opens, strictly after the instant, UTC."""
        return next(opens for opens, _ in self._around(at, 1, _HORIZON_DAYS) if opens > at)

    def last_moment(self, at: datetime) -> datetime:
        """The last microsecond of the newest window that closed by the instant, UTC."""
        return max(closes for _, closes in self._around(at, _HORIZON_DAYS, 1) if closes <= at) - _TICK
