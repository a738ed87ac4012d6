"""Writes file groups of one operation: those that this task takes from the board, a window of open files at a time."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock
from typing import Any

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import OperationContext
from airflow_provider_floe.engines.local.commit import delete_quietly
from airflow_provider_floe.engines.local.encodings import Trial
from airflow_provider_floe.engines.local.group_work import drain, wait_for_others
from airflow_provider_floe.engines.local.handed_over import file_from_json, handed_over
from airflow_provider_floe.engines.local.ordering import Ordering
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.rewrite_group import GroupRewrite, Written, rewrite_group
from airflow_provider_floe.engines.local.verify import Expectation, expectations, verify_stored
from airflow_provider_floe.engines.sharing import GroupBoard
from airflow_provider_floe.iceberg.file_groups import FileGroup, FileGroups
from airflow_provider_floe.iceberg.selection import Selection
from airflow_provider_floe.text import bytes_text

log = logging.getLogger(__name__)

MEMORY_PER_GROUP = 256 * 1024**2
"""Groups are rewritten side by side while each has at least so many bytes of memory."""
MOST_OPEN_COLUMNS = 300_000
"""Columns of groups that are opened together, some 300 bytes each: what the manifests say of them is in memory."""


class GroupWriter:
    """Writes and verifies the new files of file groups, several groups at a time.

    :param most_at_a_time: groups; fewer where memory or processors are short.
    """

    def __init__(
        self,
        *,
        context: OperationContext,
        board: GroupBoard,
        table: Table,
        selection: Selection,
        groups: FileGroups,
        manifests: Sequence[ManifestFile],
        ordering: Ordering,
        trial: Trial,
        memory_bytes: int,
        most_at_a_time: int,
    ) -> None:
        self._context = context
        self._board = board
        self._table = table
        self._selection = selection
        self._groups = groups
        self._open = _OpenGroups(table, groups, manifests)
        self._layout = ParquetLayout(table.metadata)
        self._ordering = ordering
        self._trial = trial
        self._memory_bytes = memory_bytes
        self._most_at_a_time = most_at_a_time
        self._written: dict[int, Written] = {}
        self._bytes_done = 0
        self._counting = Lock()

    def write(self, numbers: range) -> list[Written]:
        """Write these groups, with other tasks where they help; on failure none of the files stays."""
        try:
            self.write_free(numbers)
            wait_for_others(self._board, numbers.stop, lambda: self.write_free(numbers))
            others = self._board.finished() if any(number not in self._written for number in numbers) else {}
            written = [self._written.get(number) or self._by_another(number, others[number]) for number in numbers]
        except Exception:
            self._discard()
            raise
        self._written.clear()
        return written

    def write_free(self, numbers: range) -> int:
        """Write those of these groups, and of the ones before them, that nobody has taken; returns how many."""
        self._context.checkpoint()
        stop = Event()
        workers = self._workers(numbers)
        return len(drain(self._board, numbers.stop, lambda number: self._write(number, workers, stop), workers, stop))

    def _workers(self, numbers: range) -> int:
        fit = self._memory_bytes // MEMORY_PER_GROUP
        return max(1, min(self._most_at_a_time, len(numbers), os.cpu_count() or 1, fit))

    def _write(self, number: int, workers: int, stop: Event) -> None:
        """Write one group and hand it in; when that fails, its files are gone."""
        announced: list[str] = []

        def announce(path: str) -> None:
            self._context.journal.record_outputs([path])
            announced.append(path)

        def read(size: int) -> None:
            if stop.is_set():
                raise InterruptedError("another file group failed")
            self._context.checkpoint()
            self._count(size)

        group, expected = self._open.get(number)
        try:
            written = rewrite_group(
                GroupRewrite(
                    table=self._table,
                    layout=self._layout,
                    ordering=self._ordering,
                    selection=self._selection,
                    group=group,
                    expected=expected,
                    trial=self._trial,
                    memory_bytes=self._memory_bytes // workers,
                    announce=announce,
                    progress=read,
                )
            )
            self._board.finish(number, handed_over(written.files, copied=written.copied))
        except Exception:
            delete_quietly(self._table, announced)
            raise
        self._written[number] = replace(written, group=self._groups.closed(group))

    def _count(self, size: int) -> None:
        with self._counting:
            self._bytes_done += size
            self._context.progress(self._bytes_done, self._groups.size_bytes, "bytes")

    def _by_another(self, number: int, document: Mapping[str, Any]) -> Written:
        """What another task handed in.

        :raises VerificationFailed: when its files are not what it said.
        """
        group, _ = self._open.get(number)
        files = tuple(file_from_json(file) for file in document["files"])
        verify_stored(self._table.io, files, group.output_spec_id)
        self._count(group.size_bytes)
        log.info("another task has written file group %d (%s)", number, bytes_text(group.size_bytes))
        return Written(self._groups.closed(group), files, copied=document["copied"])

    def _discard(self) -> None:
        delete_quietly(self._table, [file.file_path for one in self._written.values() for file in one.files])


class _OpenGroups:
    """Groups with their files, and what the manifests say of them: those of one window, so that memory is bounded."""

    def __init__(self, table: Table, groups: FileGroups, manifests: Sequence[ManifestFile]) -> None:
        self._table = table
        self._manifests = manifests
        self._windows = list(groups.windows(MOST_OPEN_COLUMNS // max(1, len(table.schema().fields))))
        ends = 0
        self._begins = [ends := ends + len(window) for window in (range(0), *self._windows)][:-1]
        self._found: dict[int, tuple[FileGroup, Expectation]] = {}
        self._lock = Lock()

    def get(self, number: int) -> tuple[FileGroup, Expectation]:
        """A group; the others of its window are opened with it."""
        with self._lock:
            if number not in self._found:
                self._found = {}
                opened = list(self._windows[bisect_right(self._begins, number) - 1])
                expected = expectations(self._table.io, self._manifests, opened, self._table.schema())
                self._found = {group.number: (group, one) for group, one in zip(opened, expected, strict=True)}
            return self._found[number]
