"""spark-submit as a child process."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from airflow_provider_floe.errors import EngineUnavailable

log = logging.getLogger(__name__)

_APPLICATION = re.compile(r"\b(application_\d+_\d+|driver-\d{14}-\d+)\b")
_NAME = re.compile(r"floe: .*", re.DOTALL)
_GRACE_SECONDS = 10.0


def end_processes(operation_id: str) -> None:
    """Kill what spark-submit has running on this host for an operation, whoever started it, and wait for its end."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(_NAME.fullmatch(argument) and operation_id in argument for argument in process.cmdline()):
                process.kill()
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    _, alive = psutil.wait_procs(found, timeout=_GRACE_SECONDS)
    if found:
        log.info("%s: killed %d processes of spark-submit on this host", operation_id, len(found) - len(alive))


def application_name(operation: str, table: Sequence[str], operation_id: str) -> str:
    """By which people, and :func:`end_processes`, know an application."""
    return f"floe: {operation} {'.'.join(table)} {operation_id}"


class SparkSubmit:
    """Starts spark-submit, with the arguments that say where and how; a :class:`Submitter`.

    :param command: spark-submit and its arguments, without the application.
    :param environment: variables to set beside those of this process; credentials go here or into Spark's own
        configuration, never into the command.
    :param connection: names the connection in messages.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, connection: str
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment or {})
        self._connection = connection

    def __call__(
        self, application: Path, arguments: Sequence[str], *, files: Sequence[Path], name: str, here: bool = False
    ) -> SparkSubmitProcess:
        """See :class:`~airflow_provider_floe.engines.spark.submit.Submitter`."""
        shipped = ["--files", ",".join(str(file) for file in files)] if files else []
        mode = ["--deploy-mode", "client"] if here else []
        command = [*self._command, *mode, "--name", name, *shipped, str(application), *arguments]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise EngineUnavailable(
                f"connection {self._connection!r}: {self._command[0]} cannot be started ({error}): check that Spark is "
                "installed where this task runs, and on the PATH"
            ) from error
        return SparkSubmitProcess(process)


class SparkSubmitProcess:
    """A running spark-submit; what it prints goes to the log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._application: str | None = None
        self._reader = threading.Thread(target=self._read, name=f"spark-submit-{process.pid}", daemon=True)
        self._reader.start()

    @property
    def id(self) -> str:
        """The cluster's name of it where it was printed, else host and process."""
        return self._application or f"{socket.gethostname()}:{self._process.pid}"

    def wait(self, seconds: float) -> int | None:
        """See :class:`~airflow_provider_floe.engines.spark.submit.Submission`."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(_GRACE_SECONDS)
        return code

    def kill(self) -> None:
        """End it and all that it started; first politely, so that it can end its application on the cluster."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                pass
            break

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if self._application is None and (found := _APPLICATION.search(line)):
                self._application = found.group(1)
            log.info("spark: %s", line.rstrip())
