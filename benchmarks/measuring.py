"""Runs each contender in a process of its own and tells what it took; asks of the figures whether goals are met."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a contender took, its imports left out, and what it left behind.

    :ivar wall: seconds; of a contender that failed, this and ``cpu`` are no numbers.
    :ivar cpu: seconds of all threads, of child processes, and of what served it from the benchmark's own process.
    :ivar rss: most memory of the process and of its child processes, bytes.
    :ivar files: Parquet files written.
    :ivar note: what else it has to say; why it failed.
    """

    name: str
    wall: float
    cpu: float
    rss: int
    size: int
    files: int
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether there are no figures."""
        return math.isnan(self.cpu)


def failure(name: str, reason: str) -> Measured:
    """The row of a contender that cannot be measured."""
    return Measured(name, math.nan, math.nan, 0, 0, 0, reason)


def measure(
    name: str, folder: Path, command: Sequence[Any], prepare: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Measured:
    """Run a contender, whose last line is what :func:`report` prints.

    What was written before is on disk when it begins, so that it does not pay for others.

    :param folder: where it writes; emptied before and removed afterwards.
    :param prepare: makes what it works on, in the emptied folder, and keeps it there until the contender is done.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with prepare() as more:
            os.sync()
            served = time.process_time()
            done = subprocess.run([str(part) for part in (*command, *(more or ()))], capture_output=True, text=True)
            served = time.process_time() - served
        if done.returncode:
            found = failure(name, (done.stderr.strip() or done.stdout.strip() or "killed").splitlines()[-1][:200])
        else:
            figures = json.loads(done.stdout.strip().splitlines()[-1])
            found = Measured(name, **{**figures, "cpu": figures["cpu"] + served})
        told = f"{found.cpu:.1f} CPU s in {found.wall:.1f} s, {found.rss / 1e6:,.0f} MB, {found.size / 1e6:,.1f} MB out"
        print(f"  {name}: {f'failed: {found.note}' if found.failed else told}", file=sys.stderr)
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def medians(times: int, by: str, *runs: Callable[[], Measured]) -> list[Measured]:
    """Each run so many times, in turn; of each the one in the middle.

    :param by: the figure that they are ordered by.
    """
    rounds = [[run() for run in runs] for _ in range(times)]
    return [
        next((one for one in taken if one.failed), sorted(taken, key=attrgetter(by))[times // 2])
        for taken in zip(*rounds, strict=True)
    ]


def report(folder: Path, work: Callable[[], str | None], afterwards: Callable[[], str] | None = None) -> None:
    """Do the work in this process and print what it took.

    :param afterwards: has something to say of what was written; not measured.
    """
    before, started = cpu_seconds(), time.perf_counter()
    note = work()
    wall, cpu = time.perf_counter() - started, cpu_seconds() - before
    peak = peak_bytes()
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".parquet", ".bytes")]
    found = {
        "wall": wall,
        "cpu": cpu,
        "rss": peak,
        "size": sum(path.stat().st_size for path in files),
        "files": len(files),
        "note": afterwards() if afterwards else note or "",
    }
    print(json.dumps(found), file=sys.stdout)


def peak_bytes() -> int:
    """Of this process and those below it that live, each one's own: ``ru_maxrss`` begins with what the parent had."""
    peaks = (_proc(pid, "status").partition("VmHWM:")[2].split()[:1] for pid in (os.getpid(), *_descendants()))
    return sum(int(kibibytes) * 1024 for peak in peaks for kibibytes in peak)  # what is over has none


def cpu_seconds() -> float:
    """Of this process and of all those below it, whether they live or are over."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = sum(sum(map(int, _stat(pid)[11:15])) for pid in _descendants())
    return sum(one.ru_utime + one.ru_stime for one in used) + ticks / os.sysconf("SC_CLK_TCK")


def _descendants() -> list[int]:
    """Processes that live below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            parents[int(entry.name)] = int(stat[1])
    found: list[int] = []
    level = {os.getpid()}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        found += level
    return found


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/<pid>/stat`` after the command's name, which may hold anything."""
    return _proc(pid, "stat").rpartition(")")[2].split()


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it is over
        return ""


def show(rows: Sequence[Measured], *, bound: str) -> None:
    """A table, with CPU as a ratio to the contender ``bound``."""
    limit = next((one.cpu for one in rows if one.name == bound), 0.0)
    print(f"  {'':<44}{'wall s':>8}{'CPU s':>8}{'x bound':>9}{'peak MB':>9}{'MB out':>9}{'files':>7}")
    for one in rows:
        if one.failed:
            print(f"  {one.name:<44}{'-':>8}{'-':>8}{'-':>9}{'-':>9}{'-':>9}{'-':>7}  failed: {one.note}")
            continue
        ratio = f"{one.cpu / limit:.2f}" if limit else ""
        print(
            f"  {one.name:<44}{one.wall:>8.2f}{one.cpu:>8.2f}{ratio:>9}{one.rss / 1e6:>9,.0f}{one.size / 1e6:>9,.1f}"
            f"{one.files:>7,}  {one.note}"
        )


@dataclass(frozen=True)
class Goal:
    """What a benchmark should show, and what it showed."""

    text: str
    figure: str
    met: bool


def at_most(text: str, figure: float, limit: float, unit: str) -> Goal:
    """A figure that should not pass a limit; one that is no number does not meet it."""
    return Goal(f"{text}: at most {limit:,g}{unit}", f"{figure:,.2f}{unit}", figure <= limit)


def at_least(text: str, figure: float, limit: float, unit: str) -> Goal:
    """A figure that should reach a limit."""
    return Goal(f"{text}: at least {limit:,g}{unit}", f"{figure:,.0f}{unit}", figure >= limit)


def show_goals(goals: Sequence[Goal]) -> None:
    """A line for each: the goal, the figure, met or not."""
    for goal in goals:
        print(f"  goal: {goal.text}: {goal.figure}: {'met' if goal.met else 'NOT MET'}")
