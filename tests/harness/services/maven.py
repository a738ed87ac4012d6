"""Artifacts of the Maven repositories that this machine's Maven is set up for, kept under ``.cache/services``."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from harness.environments import CACHE

SERVICES = CACHE / "services"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"


def artifact(coordinates: str) -> Path:
    """One file, alone. It is fetched once.

    :param coordinates: ``group:artifact:version:packaging``, then ``:classifier`` where there is one.
    """
    folder = SERVICES / "artifacts" / coordinates.replace(":", "_")
    with once(folder, coordinates) as missing:
        if missing:
            _maven(f"{_PLUGIN}:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}")
    return next(path for path in folder.iterdir() if path.name != _STAMP)


def libraries(name: str, dependencies: Sequence[str], *, without: Mapping[str, Sequence[str]] | None = None) -> Path:
    """A folder with the jars of the dependencies and of all that they need. It is filled once.

    :param dependencies: ``group:artifact:version``, then ``:classifier`` where there is one.
    :param without: what is left out of all that a dependency needs: ``group:artifact`` by ``group:artifact``.
    """
    folder = SERVICES / name
    without = without or {}
    excluded = [f"{one} without {', '.join(those)}" for one, those in without.items()]
    with once(folder, "\n".join([*dependencies, *excluded])) as missing:
        if missing:
            with tempfile.TemporaryDirectory() as place:
                pom = Path(place, "pom.xml")
                pom.write_text(_pom(dependencies, without))
                _maven(
                    "-f",
                    str(pom),
                    f"{_PLUGIN}:copy-dependencies",
                    "-DincludeScope=runtime",
                    f"-DoutputDirectory={folder}",
                )
    return folder


_STAMP = ".complete"


@contextmanager
def once(folder: Path, content: str) -> Iterator[bool]:
    """Whether the folder has yet to be filled; held against other processes, and emptied first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / _STAMP
        wanted = hashlib.sha256(content.encode()).hexdigest()
        missing = not stamp.exists() or stamp.read_text() != wanted
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield missing
        stamp.write_text(wanted)


def _pom(dependencies: Sequence[str], without: Mapping[str, Sequence[str]]) -> str:
    listed = "".join(_dependency(one, without) for one in dependencies)
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>floe</groupId><artifactId>services</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{listed}</dependencies></project>"
    )


def _dependency(coordinates: str, without: Mapping[str, Sequence[str]]) -> str:
    parts = coordinates.split(":")
    excluded = [f"<exclusion>{_tags(one.split(':'))}</exclusion>" for one in without.get(":".join(parts[:2]), ())]
    exclusions = f"<exclusions>{''.join(excluded)}</exclusions>" if excluded else ""
    return f"<dependency>{_tags(parts)}{exclusions}</dependency>"


def _tags(parts: Sequence[str]) -> str:
    names = ("groupId", "artifactId", "version", "classifier")
    return "".join(f"<{name}>{escape(part)}</{name}>" for name, part in zip(names, parts, strict=False))


def _maven(*arguments: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("mvn is not on the path: install Apache Maven, which fetches the servers that tests start")
    done = subprocess.run([maven, "-B", "-q", "-ntp", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mvn {' '.join(arguments)} failed: {(done.stdout + done.stderr)[-2000:]}")
