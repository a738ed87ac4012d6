"""What a service is, and the facts that it tells those who use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

Facts = Mapping[str, str]
"""What a client needs to know of a running service: its address, keys and folders."""


@dataclass(frozen=True)
class Start:
    """What starting a service gives.

    :ivar process: None for a service that is only installed, such as a Spark to submit to.
    """

    facts: dict[str, str]
    process: Popen[bytes] | None = None


@dataclass(frozen=True)
class Service:
    """A server that tests use.

    :ivar needs: services that must run before it; their facts are handed to ``start``.
    :ivar install: fetches what it consists of, once.
    :ivar start: starts it in an empty folder and returns when it answers. Its log is ``<name>.log`` in that folder.
    """

    name: str
    install: Callable[[], object]
    start: Callable[[Path, Mapping[str, Facts]], Start]
    needs: tuple[str, ...] = ()
