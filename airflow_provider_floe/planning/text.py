"""Numbers and times as people read them, for the reasons that planning gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def bytes_text(size: float) -> str:
    """A size in binary units, for example ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} PiB"


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
