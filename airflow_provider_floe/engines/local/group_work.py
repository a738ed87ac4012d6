"""Works through the file groups on a board: several at a time in this task, others maybe in other tasks."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

from airflow_provider_floe.engines.sharing import GroupBoard, GroupOffer
from airflow_provider_floe.iceberg.file_groups import FileGroups

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the task that commits looks for what other tasks still write."""


class OwnBoard:
    """The board of an operation whose groups nobody shares."""

    def __init__(self) -> None:
        self._offered: tuple[int, Sequence[GroupOffer]] = (0, ())
        self._open: deque[int] = deque()
        self._finished: set[int] = set()
        self._lock = Lock()

    def offer(self, snapshot_id: int, groups: Sequence[GroupOffer]) -> None:
        """See :class:`~airflow_provider_floe.engines.sharing.GroupBoard`, as for all that follows."""
        self._offered = (snapshot_id, groups)
        self._open.extend(group.number for group in groups)

    def offered(self) -> tuple[int, Sequence[GroupOffer]]:
        """The snapshot and its groups."""
        return self._offered

    def claim(self, before: int) -> int | None:
        """The next group."""
        with self._lock:
            return self._open.popleft() if self._open and self._open[0] < before else None

    def finish(self, number: int, written: Mapping[str, Any]) -> None:
        """The task has what was written itself."""
        self._finished.add(number)

    def give_back(self, number: int) -> None:
        """Nobody else could take it."""

    def unfinished(self, before: int) -> int:
        """Groups below this number that were not handed in."""
        return sum(group.number < before and group.number not in self._finished for group in self._offered[1])

    def finished(self) -> Mapping[int, Mapping[str, Any]]:
        """Nobody else has handed anything in."""
        return {}


def group_digest(groups: FileGroups, number: int, mark: str, schema_id: int) -> str:
    """Of all that makes a group: two tasks that find the same write the same rows into the same kind of files.

    Where files stand in the manifests of one snapshot says which they are, and what deletes reach them.

    :param mark: of the settings that shape the files.
    :param schema_id: of the table's current schema, in which the files are written.
    """
    columns = groups.columns
    first, count = int(columns.first[number]), int(columns.count[number])
    made = (mark, schema_id, columns.places[columns.place[number]], count)
    found = hashlib.blake2b(repr(made).encode(), digest_size=16)
    found.update(columns.where[first : first + count].tobytes())
    return found.hexdigest()


def drain(board: GroupBoard, before: int, write: Callable[[int], None], workers: int, stop: Event) -> list[int]:
    """Write the groups below a number that nobody has; returns which.

    :param write: writes a group and hands it in; has removed its files when it raises.
    :param workers: groups at a time.
    :param stop: set as soon as one group has failed.
    """
    done: list[int] = []

    def take() -> None:
        while not stop.is_set() and (number := board.claim(before)) is not None:
            try:
                write(number)
            except BaseException:
                stop.set()
                board.give_back(number)
                raise
            done.append(number)

    if workers == 1:
        take()
        return done
    with ThreadPoolExecutor(workers, thread_name_prefix="floe-rewrite") as pool:
        failures = [error for one in [pool.submit(take) for _ in range(workers)] if (error := one.exception())]
    raise_cause(failures)
    return done


def raise_cause(failures: Sequence[BaseException]) -> None:
    """Raise what failed first, not those that were stopped for it; nothing where there are none."""
    if failures:
        raise min(failures, key=lambda error: isinstance(error, InterruptedError))


def wait_for_others(board: GroupBoard, before: int, write_what_is_free: Callable[[], object]) -> None:
    """Until all groups below a number are handed in, by whomever.

    :param write_what_is_free: called at every look, for groups whose takers died; may raise to stop.
    """
    told = 0
    while left := board.unfinished(before):
        if left != told:
            log.info("waiting for other tasks, which are still writing %d file groups", left)
            told = left
        time.sleep(POLL_SECONDS)
        write_what_is_free()
