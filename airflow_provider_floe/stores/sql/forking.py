"""Keeps database handles from crossing a fork.

SQLite keeps file locks per process in its own memory; a child that inherits an open connection believes in locks that
it does not have, and can corrupt the file. A PostgreSQL socket shared by two processes mixes up their answers. So a
fork waits until no thread is in the middle of a transaction, and idle connections are closed before it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

_WAIT_SECONDS = 35.0
"""How long a fork waits for transactions of other threads; longer than SQLite's busy timeout."""


class ForkGate:
    """Counts the threads that use a database, and holds newcomers back during a fork.

    :param close_idle: closes connections that nobody uses; called in the parent, right before the fork.
    :ivar torn: in a child: it was forked in the middle of a transaction, so the database must not be used here.
    """

    def __init__(self, close_idle: Callable[[], None]) -> None:
        self._close_idle = close_idle
        self._condition = threading.Condition()
        self._inside: set[int] = set()
        self._shut = False
        self.torn = False
        _GATES.add(self)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The current thread uses a connection; not reentrant."""
        me = threading.get_ident()
        with self._condition:
            self._condition.wait_for(lambda: not self._shut)
            self._inside.add(me)
        try:
            yield
        finally:
            with self._condition:
                self._inside.discard(me)
                self._condition.notify_all()

    def before_fork(self) -> None:
        """Let nobody in, and wait for the others to leave."""
        me = {threading.get_ident()}
        with self._condition:
            self._shut = True
            self._condition.wait_for(lambda: self._inside <= me, timeout=_WAIT_SECONDS)
        self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Open again."""
        with self._condition:
            self._shut = False
            self._condition.notify_all()

    def after_fork_in_child(self) -> None:
        """Start afresh: the other threads do not exist here."""
        self._condition = threading.Condition()
        self._shut = False
        self.torn = self.torn or bool(self._inside)
        self._inside = set()


_GATES: WeakSet[ForkGate] = WeakSet()
_fork_lock = threading.Lock()
_shut: list[ForkGate] = []


def _before() -> None:
    # one fork at a time, so that two forking threads cannot each hold gates that the other waits for
    _fork_lock.acquire()
    for gate in list(_GATES):
        _shut.append(gate)
        gate.before_fork()


def _after_in_parent() -> None:
    while _shut:
        _shut.pop().after_fork_in_parent()
    _fork_lock.release()


def _after_in_child() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()
    while _shut:
        _shut.pop().after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
