"""Servers of the harness are shared by test processes, and end with the last of them, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from harness.services.process import answers

pytestmark = pytest.mark.services

TESTS = Path(__file__).parents[1]
USER = """
import time
from harness.services.running import use
with use("s3") as services:
    print(services["s3"]["endpoint"], flush=True)
    time.sleep(600)
"""


def user(run: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "FLOE_SERVICES_RUN": str(run), "PYTHONPATH": str(TESTS)}
    return subprocess.Popen([sys.executable, "-c", USER], env=environment, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_server_ends_with_the_last_of_its_users_even_when_they_are_killed(tmp_path: Path) -> None:
    users = [user(tmp_path), user(tmp_path)]
    try:
        first, second = (told(one) for one in users)
        assert first == second
        users[0].kill()
        users[0].wait()
        with urlopen(f"{second}/moto-api/") as answer:
            assert answer.status == 200
    finally:
        for one in users:
            one.kill()
            one.wait()
    deadline = time.monotonic() + 30
    while answers(f"{second}/moto-api/"):
        assert time.monotonic() < deadline, "the server outlived its users"
        time.sleep(0.1)
    third = user(tmp_path)
    try:
        assert answers(f"{told(third)}/moto-api/")
    finally:
        third.kill()
        third.wait()
