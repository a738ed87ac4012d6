"""Numbers, sizes and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def bytes_text(size: float) -> str:
    """A size in binary units, for example ``1.5 GiB`` or ``512 MiB``."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.{0 if unit == 'B' else 1}f} {unit}".replace(".0 ", " ")


def number_text(value: float) -> str:
    """A number without needless decimals, at most two."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun, for example ``1 file`` or ``1,200 files``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def duration_text(duration: timedelta) -> str:
    """A length of time in its two largest units, for example ``2 d 3 h``; below zero counts as none."""
    seconds = max(0, int(duration.total_seconds()))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, seconds = divmod(seconds, length)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount:,} {unit}")
    return " ".join(parts[:2])


def time_text(moment: datetime) -> str:
    """A moment in UTC, to the minute."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def later(moment: datetime, delay: timedelta) -> datetime:
    """The moment plus a delay, held at the end of time."""
    end = datetime.max.replace(tzinfo=UTC)
    return end if delay >= end - moment else moment + delay
