"""A Livy server in memory, whose requests and answers a test may lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_floe.errors import EngineUnavailable

Answered = tuple[int, Mapping[str, Any]]


class Memory:
    """A Livy: names are unique, ids ascend, and a batch that it refuses stays in its list.

    :ivar before: answers a request instead, where it answers something, or raises.
    :ivar lose: methods whose answers get lost, as ``loss``.
    """

    url = "http://livy:8998"

    def __init__(self) -> None:
        self.batches: dict[int, dict[str, Any]] = {}
        self.next_id = 0
        self.before: Callable[[str, str], Answered | None] = lambda method, path: None
        self.lose: tuple[str, ...] = ()
        self.loss: BaseException = EngineUnavailable("Livy of connection 'c' does not answer")

    def add(self, name: str, state: str = "running") -> dict[str, Any]:
        batch = {"id": self.next_id, "name": name, "state": state, "appId": None, "appInfo": {"sparkUiUrl": None}}
        self.batches[self.next_id] = batch
        self.next_id += 1
        return batch

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answered:
        if answer := self.before(method, path):
            return answer
        answer = self.answer(method, path, body or {})
        if method in self.lose:
            raise self.loss
        return answer

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> Answered:
        if method == "POST":
            if any(batch["name"] == body["name"] for batch in self.batches.values()):
                return 400, {"msg": f"Duplicate session name: Some({body['name']}) for session {self.next_id}"}
            batch = self.add(body["name"], "starting")
            if body["file"].startswith("file:"):
                return 400, {"msg": "requirement failed: Local path cannot be added to user sessions."}
            return 201, batch
        if "?from=" in path:
            start, size = (int(part.partition("=")[2]) for part in path.partition("?")[2].split("&"))
            every = list(self.batches.values())
            return 200, {"from": start, "total": len(every), "sessions": every[start : start + size]}
        number = int(path.rpartition("/")[2])
        if number not in self.batches:
            return 404, {"msg": f"Session '{number}' not found."}
        return (
            (200, self.batches[number]) if method == "GET" else (200, self.batches.pop(number) and {"msg": "deleted"})
        )
