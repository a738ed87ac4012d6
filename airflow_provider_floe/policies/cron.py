"""Cron expressions in both dialects, as five Unix fields: Unix as they are, Quartz translated or refused by name."""

from __future__ import annotations

import re
from datetime import datetime

from croniter import croniter

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_TERM = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?", re.ASCII)


class InvalidCron(ValueError):
    """A cron expression cannot be read or translated; the message says which part and why."""


def unix_cron(expression: str) -> str:
    """The expression in five Unix fields: minute, hour, day of month, month, day of week (0 = Sunday).

    Six or seven fields are Quartz: seconds first, days of the week 1 = Sunday to 7 = Saturday, an optional year.

    :raises InvalidCron: when it is malformed, never fires, or uses what Unix cron cannot say: ``L``, ``W``, ``#``,
        ``C``, seconds other than 0, a year other than ``*``.
    """
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in PRESETS:
            raise InvalidCron(f"{text!r} is not one of {', '.join(PRESETS)}")
        return PRESETS[text.lower()]
    fields = text.split()
    if len(fields) not in (5, 6, 7):
        raise InvalidCron(f"it has {len(fields)} fields: write 5 (Unix) or 6 to 7 (Quartz, seconds first)")
    quartz = len(fields) > 5
    if quartz:
        fields = _without_seconds_and_year(fields)
    values = [_values(field, index, quartz) for index, field in enumerate(fields)]
    unix = " ".join(
        "*" if found is None else _rendered(field, found, quartz and index == 4)
        for index, (field, found) in enumerate(zip(fields, values, strict=True))
    )
    _refuse_never(unix)
    return unix


def _without_seconds_and_year(fields: list[str]) -> list[str]:
    if not re.fullmatch("0+", fields[0]):
        raise InvalidCron(f"seconds are {fields[0]!r}: only 0 is possible, as slots are whole minutes")
    if len(fields) == 7 and fields[6] not in ("*", "?"):
        raise InvalidCron(f"the year is {fields[6]!r}: only * is possible")
    five = fields[1:6]
    if five[2] not in ("*", "?") and five[4] not in ("*", "?"):
        raise InvalidCron("day of month and day of week are both given: Quartz wants ? in one of them")
    return ["*" if field == "?" and index in (2, 4) else field for index, field in enumerate(five)]


def _values(field: str, index: int, quartz: bool) -> list[int] | None:
    """The numbers that a field stands for, with Sunday as 0; None for every one."""
    if field == "*":
        return None
    found: set[int] = set()
    for term in field.split(","):
        found.update(_term_values(term, index, quartz))
    every = index in (0, 1, 3) and len(found) == _RANGES[index][1] - _RANGES[index][0] + 1
    return None if every else sorted(found)


def _term_values(term: str, index: int, quartz: bool) -> list[int]:
    what = _FIELDS[index]
    match = _TERM.fullmatch(term)
    first = match.group("first").upper() if match else ""
    if match is None or (first not in (*_MONTHS, *_DAYS) and re.search("[LWC#]", first)):
        for sign, meaning in (("L", "last"), ("W", "nearest weekday"), ("#", "n-th weekday"), ("C", "calendar")):
            if sign in re.sub("[A-Z]{3}", "", term.upper()):
                raise InvalidCron(f"{what} {term!r}: {sign} ({meaning}) is a Quartz extension that is not supported")
        raise InvalidCron(f"{what} {term!r} cannot be read")
    low, high = (1, 7) if quartz and index == 4 else _RANGES[index]
    step = int(match.group("step") or 1)
    if not 1 <= step <= high:
        raise InvalidCron(f"{what} {term!r}: the step must be from 1 to {high}")
    if first == "*":
        if match.group("last"):
            raise InvalidCron(f"{what} {term!r} cannot be read")
        begin, end = low, 6 if index == 4 and not quartz else high
    else:
        begin = _number(first, what, term, index, quartz)
        last = match.group("last")
        alone = high if match.group("step") else begin
        end = _number(last.upper(), what, term, index, quartz) if last else alone
    top = 6 if index == 4 and not quartz else high
    span = list(range(begin, end + 1)) if begin <= end else [*range(begin, top + 1), *range(low, end + 1)]
    numbers = span[::step]
    if index != 4:
        return numbers
    return [(number - 1 if quartz else number) % 7 for number in numbers]


def _number(text: str, what: str, term: str, index: int, quartz: bool) -> int:
    low, high = (1, 7) if quartz and index == 4 else _RANGES[index]
    if index == 3 and text in _MONTHS:
        return _MONTHS.index(text) + 1
    if index == 4 and text in _DAYS:
        return _DAYS.index(text) + (1 if quartz else 0)
    if not text.isdecimal():
        raise InvalidCron(f"{what} {term!r}: {text!r} is neither a number nor a name")
    if not low <= int(text) <= high:
        raise InvalidCron(f"{what} {term!r}: {text} is not within {low} to {high}")
    return int(text)


def _rendered(field: str, values: list[int], renumbered: bool) -> str:
    """The field as written where Unix cron reads it alike, else as a list of numbers."""
    wraps = any(
        part.isdecimal() and last.isdecimal() and int(part) > int(last)
        for part, _, last in (term.partition("/")[0].partition("-") for term in field.split(","))
    )
    plain = re.fullmatch(r"[\d*,/-]+", field) and not wraps and not re.search(r"(^|,)\d+/", field)
    return field if plain and not renumbered else ",".join(map(str, values))


def _refuse_never(unix: str) -> None:
    try:
        croniter(unix, datetime(2000, 1, 1)).get_next(datetime)
    except ValueError:
        raise InvalidCron("no date ever matches it") from None
