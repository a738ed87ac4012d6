"""Runs services for as long as someone uses them.

Each running service has a keeper, a process of its own that starts and stops it. Users hold a shared lock on a file
while they use it; the keeper waits for the exclusive one, which it gets when the last user is gone, however that ended,
and then stops the service. So test processes share one server, and none is left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from harness.environments import REPOSITORY
from harness.services.base import Facts
from harness.services.maven import SERVICES
from harness.services.process import START_SECONDS, stop
from harness.services.registry import find

_RUN = Path(os.environ.get("FLOE_SERVICES_RUN", SERVICES / "run"))


@contextmanager
def use(*names: str) -> Iterator[dict[str, Facts]]:
    """The facts of services, started where they do not run yet; they keep running while anyone is in such a block.

    :raises RuntimeError: when one cannot be installed or started, with the end of its log.
    """
    with ExitStack() as stack:
        facts: dict[str, Facts] = {}
        for name in names:
            service = find(name)
            service.install()
            facts[name] = stack.enter_context(_used(name))
        yield facts


def start(name: str) -> Facts:
    """Start a service, unless it runs, to run until it is stopped by name."""
    find(name).install()
    with _used(name, stay=True) as facts:
        return facts


def stop_by_name(name: str) -> bool:
    """Whether a service ran, that is stopped now."""
    pid = _keeper(name)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    while _keeper(name) is not None:
        time.sleep(0.1)
    return True


def running_facts(name: str) -> Facts | None:
    """The facts of a service; None when it does not run."""
    return _state(name) if _keeper(name) is not None else None


def keep(name: str, *, stay: bool) -> None:
    """The keeper: start the service, tell its facts, stop it when no one uses it any more, or when told to.

    :param stay: go on without users.
    """
    home = _home(name)
    shutil.rmtree(home / "data", ignore_errors=True)
    service = find(name)
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ExitStack() as stack, open(home / "users", "a") as users:
        needs = stack.enter_context(use(*service.needs))
        (home / "data").mkdir()
        started = service.start(home / "data", needs)
        if started.process is not None:
            stack.callback(stop, started.process)
        stack.callback((home / "state.json").unlink, missing_ok=True)
        state = home / "state.json.new"
        state.write_text(json.dumps({"keeper": os.getpid(), "facts": started.facts}))
        state.rename(home / "state.json")
        while stay:
            time.sleep(3600)
        fcntl.flock(users, fcntl.LOCK_EX)
        stack.close()  # while we hold the lock: who comes now waits, and then starts the service anew


def _exit(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)


@contextmanager
def _used(name: str, *, stay: bool = False) -> Iterator[Facts]:
    home = _home(name)
    with open(home / "users", "a") as users, open(home / "starting", "a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if _keeper(name) is None:
            _start_keeper(name, stay)
        facts = _state(name)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield facts


def _start_keeper(name: str, stay: bool) -> None:
    home = _home(name)
    (home / "state.json").unlink(missing_ok=True)
    with open(home / "keeper.log", "wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "harness.services", "stay" if stay else "keep", name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")},
            start_new_session=True,
        )
    deadline = time.monotonic() + 2 * START_SECONDS
    while not (home / "state.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.terminate()
            raise RuntimeError(f"service {name} did not start:\n{(home / 'keeper.log').read_text()[-4000:]}")
        time.sleep(0.05)


def _home(name: str) -> Path:
    home = _RUN / find(name).name
    home.mkdir(parents=True, exist_ok=True)
    return home


def _state(name: str) -> Facts:
    facts: Facts = json.loads((_home(name) / "state.json").read_text())["facts"]
    return facts


def _keeper(name: str) -> int | None:
    """The keeper's process id; None when there is none, or its id belongs to another process by now."""
    try:
        pid = int(json.loads((_home(name) / "state.json").read_text())["keeper"])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if b"harness.services" in command and command.rstrip(b"\0").endswith(name.encode()) else None
