"""Server processes: started in a session of their own, waited for, and stopped with all that they started."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

START_SECONDS = 180
_STOP_SECONDS = 20


def launch(
    command: Sequence[str | Path], *, log: Path, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in the folder ``cwd``; what it prints goes to ``log``."""
    cwd.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def wait_until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    """Return once the server is ready.

    :raises RuntimeError: with the end of its log, when it ended or took too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            ended = f"ended with {process.returncode}" if process.poll() is not None else "is not ready"
            stop(process)
            raise RuntimeError(f"{log.stem} {ended}; the end of {log}:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group, first politely."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def free_port(*offsets: int) -> int:
    """A port below the range of outgoing connections that is free, with those at the offsets from it."""
    for port in random.sample(range(10_500, 21_500), 500):
        if all(_is_free(port + offset) for offset in (0, *offsets)):
            return port
    raise RuntimeError("no free port between 10500 and 21500")


def answers(url: str, *also: int) -> bool:
    """Whether a GET succeeds, or fails with one of the status codes."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code in also
    except OSError:
        return False


def listens(port: int) -> bool:
    """Whether something accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(3)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
