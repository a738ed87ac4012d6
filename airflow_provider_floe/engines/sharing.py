"""How an engine lets several tasks work on the file groups of one operation, of which one task commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult


@dataclass(frozen=True, slots=True)
class GroupOffer:
    """One file group that any task may write.

    :ivar number: its place in the selection, from 0.
    :ivar size_bytes: what is to be read.
    :ivar digest: of everything that makes the group; a task that computes another one must not write it.
    """

    number: int
    size_bytes: int
    digest: str


class GroupBoard(Protocol):
    """The file groups of one operation: who offers them, takes them, and what was written.

    A group has one taker at a time. What is handed in counts only from its taker, and only once.
    """

    def offer(self, snapshot_id: int, groups: Sequence[GroupOffer]) -> None:
        """By the task that commits, once: these groups of this snapshot are to be written."""

    def offered(self) -> tuple[int, Sequence[GroupOffer]]:
        """The snapshot and its groups."""

    def claim(self, before: int) -> int | None:
        """Take the first group below this number that nobody has or whose taker is dead; None when there is none."""

    def finish(self, number: int, written: Mapping[str, Any]) -> None:
        """Hand in what was written.

        :param written: JSON, private to the engine.
        :raises LeaseLost: when somebody else has the group by now, or the operation is over: it does not count then.
        """

    def give_back(self, number: int) -> None:
        """Let another task take the group."""

    def unfinished(self, before: int) -> int:
        """How many groups below this number have not been handed in."""

    def finished(self) -> Mapping[int, Mapping[str, Any]]:
        """What was handed in, by number."""


@runtime_checkable
class SharingEngine(Protocol):
    """An engine that can share the file groups of the operations that its capabilities name."""

    def execute_shared(
        self, request: OperationRequest, context: OperationContext, board: GroupBoard
    ) -> OperationResult:
        """As ``execute``, with every file group on the board, where others may take them."""

    def help(self, request: OperationRequest, context: OperationContext, board: GroupBoard) -> int:
        """Write groups that another task has offered, as long as there are any; returns how many.

        :raises FloeError: as ``execute``. Groups that were taken and not finished are given back, their files gone.
        """
