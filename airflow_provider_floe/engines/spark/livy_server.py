"""What is asked of a Livy server: batches, each by a name of its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_floe.engines.base import JobState
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable, FloeError

log = logging.getLogger(__name__)

_PAGE = 100
_LOG_LINES = 200
_ENDED = {"success": JobState.FINISHED, "dead": JobState.FAILED, "killed": JobState.FAILED, "error": JobState.FAILED}
_NO_TABLE = re.compile(r"^floe: .* cannot be loaded\b")
"""What the job says before it ends with :data:`~airflow_provider_floe.engines.spark.job.NO_TABLE`."""
_EXCEPTION = re.compile(r"(?:^|[\s(])((?:[a-z_]\w*\.)*[A-Z]\w*(?:Exception|Error))\b")
_WRAPPERS = ("SparkUserAppException", "Py4JJavaError", "SparkException")
"""Exceptions that only say that there was another one."""


class LivyRequests(Protocol):
    """Sends requests to a Livy server, with the credentials of its connection."""

    @property
    def url(self) -> str:
        """The server's address, for people: without credentials."""

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Mapping[str, Any]]:
        """Send one.

        :param path: such as ``/batches/7``.
        :returns: HTTP status, and the JSON of the answer; empty where it is none.
        :raises EngineUnavailable: when no answer came, naming the connection and what to check.
        """


@dataclass(frozen=True)
class Batch:
    """A batch, as Livy tells of it.

    :ivar word: Livy's own word for its state.
    :ivar application: the cluster's id of its application, where Livy knows it.
    :ivar url: the page to look at it.
    """

    id: int
    name: str
    word: str
    application: str | None
    url: str

    @property
    def state(self) -> JobState:
        """Whether it is over, and how."""
        return _ENDED.get(self.word, JobState.RUNNING)


@dataclass(frozen=True)
class Death:
    """What the log of a batch that failed says of why: no more of it is looked at.

    :ivar no_table: the job said that it cannot load the table.
    :ivar exception: name of the first exception that says more than that there was one.
    """

    no_table: bool = False
    exception: str | None = None


class LivyServer:
    """The batches of one server.

    :param requests: how to reach it.
    :param connection: names the connection in messages.
    """

    def __init__(self, requests: LivyRequests, connection: str) -> None:
        self._requests = requests
        self.connection = connection

    def submit(self, body: Mapping[str, Any]) -> Batch:
        """Start a batch; one of its name that is there already is taken for it, since Livy has no two of a name.

        :raises ConfigurationError: when Livy refuses it.
        :raises EngineUnavailable: when that cannot be found out: it may run.
        """
        name = str(body["name"])
        try:
            status, answer = self._requests("POST", "/batches", body)
        except EngineUnavailable:
            if batch := self.find(name):
                return batch
            raise
        message = str(answer.get("msg", ""))
        if status == 400 and "Duplicate session name" in message:
            if batch := self.find(name):
                return batch
        elif status == 400:
            self._forget(name)
            if "too many" in message.lower():
                raise EngineUnavailable(f"Livy of connection {self.connection!r} takes no more batches now: {message}")
            raise ConfigurationError(
                f"Livy of connection {self.connection!r} refuses the batch: {message}. Check floe_livy_job_file and "
                "floe_livy_batch in the extra of the connection, and which files and settings the server allows "
                "(livy.file.local-dir-whitelist, its list of forbidden Spark settings)"
            )
        self._check(status, message)
        batch = self._batch(answer)
        if batch.name != name:
            self.delete(batch.id)
            raise ConfigurationError(
                f"Livy of connection {self.connection!r} does not keep the names of batches, by which they are found "
                "again: use Livy 0.7 or newer"
            )
        return batch

    def get(self, batch_id: int | None, name: str) -> Batch | None:
        """The batch, None where there is none; ids begin anew when a server forgets its batches, names do not."""
        if batch_id is not None:
            status, answer = self._requests("GET", f"/batches/{batch_id}")
            if status != 404:
                self._check(status, str(answer.get("msg", "")))
                if answer.get("name") == name:
                    return self._batch(answer)
        return self.find(name)

    def find(self, name: str) -> Batch | None:
        """The batch of that name."""
        for answer in self._batches():
            if answer.get("name") == name:
                return self._batch(answer)
        return None

    def delete(self, batch_id: int) -> None:
        """End a batch; Livy answers when its process is gone. One that is not there is none to end."""
        status, answer = self._requests("DELETE", f"/batches/{batch_id}")
        if status != 404:
            self._check(status, str(answer.get("msg", "")))

    def death(self, batch_id: int) -> Death:
        """Why a batch failed, as far as Livy knows."""
        try:
            status, answer = self._requests("GET", f"/batches/{batch_id}/log?from=-1&size={_LOG_LINES}")
        except EngineUnavailable:
            return Death()
        return death([str(line) for line in answer.get("log", ())] if status == 200 else [])

    def _batches(self) -> Iterator[Mapping[str, Any]]:
        start, total = 0, 1
        while start < total:
            status, answer = self._requests("GET", f"/batches?from={start}&size={_PAGE}")
            self._check(status, str(answer.get("msg", "")))
            yield from answer.get("sessions", ())
            total = int(answer.get("total", 0))
            start += _PAGE

    def _forget(self, name: str) -> None:
        """A batch that was refused stays in Livy's list, never started, and keeps its name."""
        try:
            if batch := self.find(name):
                self.delete(batch.id)
        except FloeError as error:
            log.warning("%s", error)

    def _batch(self, answer: Mapping[str, Any]) -> Batch:
        info = answer.get("appInfo") or {}
        number = int(answer["id"])
        return Batch(
            id=number,
            name=str(answer.get("name") or ""),
            word=str(answer.get("state") or "unknown"),
            application=answer.get("appId"),
            url=info.get("sparkUiUrl") or f"{self._requests.url}/ui/batch/{number}/log",
        )

    def _check(self, status: int, message: str) -> None:
        if status in (401, 403):
            raise ConfigurationError(
                f"Livy of connection {self.connection!r} refuses the credentials (HTTP {status}): check login, "
                "password and headers of the connection, and whom the server lets in"
            )
        if status == 404:
            raise ConfigurationError(
                f"there is no Livy at the address of connection {self.connection!r} ({self._requests.url}): check its "
                "host and port; a host may be a whole URL, with a path where a gateway stands before Livy"
            )
        if status >= 300:
            raise EngineUnavailable(
                f"Livy of connection {self.connection!r} answers with HTTP {status} ({message or 'no message'}): check "
                "that the server is well"
            )


def death(lines: list[str]) -> Death:
    """What a log says of why its application ended."""
    names = [name for line in lines for name in _EXCEPTION.findall(line)]
    telling = [name for name in names if not name.endswith(_WRAPPERS)] or names
    return Death(any(_NO_TABLE.match(line) for line in lines), telling[0] if telling else None)
