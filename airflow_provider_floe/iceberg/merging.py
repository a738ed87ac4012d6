"""Several slow sources read at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

_T = TypeVar("_T")

_AHEAD = 4
"""Items that wait for each source at most."""
_POLL_SECONDS = 0.1


def merged(sources: Sequence[Iterator[_T]]) -> Iterator[_T]:
    """The items of all sources, as they come, each source read by a thread of its own.

    The first error of a source is raised, and ends all.
    """
    if len(sources) == 1:
        yield from sources[0]
        return
    reading = _Reading(sources)
    left = len(sources)
    try:
        while left:
            items, error = reading.queue.get()
            if error is not None:
                raise error
            yield from items
            left -= not items
    finally:
        reading.stop()


class _Reading(Generic[_T]):
    """Threads that put one item at a time into the queue, none for the end of a source, and its error."""

    def __init__(self, sources: Sequence[Iterator[_T]]) -> None:
        self.queue: Queue[tuple[list[_T], BaseException | None]] = Queue(_AHEAD * len(sources))
        self._over = Event()
        self._threads = [Thread(target=self._read, args=(one,), daemon=True, name="floe-merging") for one in sources]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self, source: Iterator[_T]) -> None:
        try:
            for item in source:
                self._put([item])
                if self._over.is_set():
                    return
        except BaseException as error:
            self._put([], error)
        else:
            self._put([])

    def _put(self, items: list[_T], error: BaseException | None = None) -> None:
        while not self._over.is_set():
            try:
                self.queue.put((items, error), timeout=_POLL_SECONDS)
            except Full:
                continue
            return
