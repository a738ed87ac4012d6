"""Python environments of their own, for what must not share ours: made once, kept while their requirements stay."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"


def environment(name: str, arguments: Sequence[str], *, fingerprint: str = "") -> Path:
    """The interpreter of ``.cache/<name>``, with what ``pip install <arguments>`` installs.

    :param fingerprint: digest of what the arguments name but do not say, such as the content of a wheel.
    """
    home = CACHE / name
    python = home / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256("\n".join([*arguments, fingerprint, sys.version]).encode()).hexdigest()
        stamp = home / "installed"
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            install(python, arguments)
            stamp.write_text(wanted)
    return python


def install(python: Path, arguments: Sequence[str]) -> None:
    """``pip install`` into the environment of ``python``; by uv, from its cache, where uv is there."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    subprocess.run([*command, "--quiet", *arguments], check=True, cwd=REPOSITORY)
