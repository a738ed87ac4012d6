"""Runs each contender in a process of its own and tells what it took."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What a contender took, its imports left out, and what it left behind.

    :ivar cpu: seconds of all threads.
    :ivar rss: most memory of the process, bytes.
    :ivar files: Parquet files written.
    :ivar note: what else it has to say.
    """

    name: str
    wall: float
    cpu: float
    rss: int
    size: int
    files: int
    note: str = ""


def measure(name: str, folder: Path, command: Sequence[Any]) -> Measured | None:
    """Run a contender, whose last line is what :func:`report` prints; None, with the reason printed, when it fails.

    :param folder: where it writes; emptied before and removed afterwards.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            print(f"  {name}: failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:200]}")
            return None
        found = Measured(name, **json.loads(done.stdout.strip().splitlines()[-1]))
        print(f"  {name}: {found.cpu:.1f} CPU s in {found.wall:.1f} s", file=sys.stderr)
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(folder: Path, work: Callable[[], str | None], afterwards: Callable[[], str] | None = None) -> None:
    """Do the work in this process and print what it took.

    :param afterwards: has something to say of what was written; not measured.
    """
    before, started = _cpu(), time.perf_counter()
    note = work()
    wall, cpu = time.perf_counter() - started, _cpu() - before
    peak = _peak()
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


def _peak() -> int:
    """Of this process alone: ``ru_maxrss`` begins with what the parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def show(rows: Sequence[Measured], *, bound: str) -> None:
    """A table, with CPU as a ratio to the contender ``bound``."""
    limit = next((one.cpu for one in rows if one.name == bound), 0.0)
    print(f"  {'':<44}{'wall s':>8}{'CPU s':>8}{'x bound':>9}{'peak MB':>9}{'MB out':>9}{'files':>7}")
    for one in rows:
        ratio = f"{one.cpu / limit:.2f}" if limit else ""
        print(
            f"  {one.name:<44}{one.wall:>8.2f}{one.cpu:>8.2f}{ratio:>9}{one.rss / 1e6:>9,.0f}{one.size / 1e6:>9,.1f}"
            f"{one.files:>7,}  {one.note}"
        )
