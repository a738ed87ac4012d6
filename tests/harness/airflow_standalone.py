"""A whole Airflow, as `airflow standalone` runs it: scheduler, API server, DAG processor, triggerer and workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

T = TypeVar("T")

FINISHED = ("success", "failed")
_BUSY_ATTEMPTS = 10
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class ApiError(Exception):
    """Airflow's API refused a request.

    :ivar status: the HTTP status.
    :ivar database_busy: Airflow's own database refused a write.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.database_busy = status == 500 and '"Database error"' in message


def free_port() -> int:
    """A TCP port of this host that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_until(what: str, look: Callable[[], T | None], timeout: float, interval: float = 1.0) -> T:
    """The first true answer of ``look``.

    :raises TimeoutError: naming ``what``, after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:.0f} s: {what}")
        time.sleep(interval)
    return found


@dataclass
class Standalone:
    """One Airflow of its own. As a context manager it runs inside the block; the command line works before that too.

    :ivar python: interpreter of the environment that has Airflow and this provider.
    :ivar home: AIRFLOW_HOME; DAGs stand in ``home/dags``.
    :ivar settings: Airflow's settings as environment variables, over those that every instance here has.
    """

    python: Path
    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _token: str | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where UI and API are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of every process of this Airflow."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
        return {
            **outside,
            "PATH": f"{self.python.parent}{os.pathsep}{outside.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            **self.settings,
        }

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``airflow <arguments>``.

        :raises AssertionError: with all its output, when it fails and ``check`` is set.
        """
        done = subprocess.run(
            [self.python, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(f"airflow {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 180) -> None:
        """Start, and return when all components are healthy."""
        with open(self.home / "standalone.log", "ab") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", "airflow", "standalone"],
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until("a healthy Airflow", self._healthy, timeout)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Until Airflow ends by itself."""
        if self._process:
            self._process.wait()

    def stop(self) -> None:
        """SIGINT lets Airflow end its parts (SIGTERM would orphan them); what is left after that is killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _healthy(self) -> bool:
        if self._process and self._process.poll() is not None:
            tail = (self.home / "standalone.log").read_text(errors="replace")[-4000:]
            raise RuntimeError(f"airflow standalone ended with exit code {self._process.returncode}:\n{tail}")
        try:
            health = self.api("GET", "/api/v2/monitor/health", authenticate=False)
        except (OSError, ApiError):
            return False
        return all(health[component]["status"] == "healthy" for component in COMPONENTS)

    # --- API ---------------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, *, authenticate: bool = True) -> Any:
        """Call Airflow's API; the decoded answer.

        Airflow's own SQLite database has one writer at a time: where the API gives up waiting for it, nothing
        happened, and the call is made again.

        :raises ApiError: for any status that is not a success.
        """
        for _ in range(_BUSY_ATTEMPTS):
            try:
                return self._call(method, path, body, authenticate=authenticate)
            except ApiError as error:
                if not error.database_busy:
                    raise
                time.sleep(2)
        return self._call(method, path, body, authenticate=authenticate)

    def _call(self, method: str, path: str, body: Any, *, authenticate: bool) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if authenticate:
            self._token = self._token or self.api("GET", "/auth/token", authenticate=False)["access_token"]
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from error

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 120) -> None:
        """Until the DAG processor has found all of them."""
        wanted = set(dag_ids)
        wait_until(
            f"DAGs {sorted(wanted)}",
            lambda: wanted <= {dag["dag_id"] for dag in self.api("GET", "/api/v2/dags?limit=1000")["dags"]},
            timeout,
        )

    def import_errors(self) -> list[str]:
        """What the UI shows as DAG import errors."""
        errors = self.api("GET", "/api/v2/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace']}" for error in errors]

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause."""
        self.api("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": paused})

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run by hand; its run id."""
        run = self.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf)})
        run_id: str = run["dag_run_id"]
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Runs of a DAG, oldest first."""
        found: list[dict[str, Any]] = self.api("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return sorted(found, key=lambda run: str(run["run_after"]))

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 180) -> str:
        """The state in which the run ended: ``success`` or ``failed``."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

        def ended() -> str | None:
            state: str = self.api("GET", path)["state"]
            return state if state in FINISHED else None

        return wait_until(f"end of {dag_id} {run_id}", ended, timeout)

    def wait_for_scheduled_run(self, dag_id: str, number: int = 1, timeout: float = 240) -> dict[str, Any]:
        """The DAG's n-th run that the scheduler created itself, once it has ended."""

        def ended() -> dict[str, Any] | None:
            scheduled = [run for run in self.runs(dag_id) if run["run_type"] == "scheduled"]
            done = [run for run in scheduled if run["state"] in FINISHED]
            return done[number - 1] if len(done) >= number else None

        return wait_until(f"scheduled run {number} of {dag_id}", ended, timeout)

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Task instances of a run; mapped ones each for itself."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=1000"
        found: list[dict[str, Any]] = self.api("GET", path)["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """What a task, not a mapped one, pushed under the key."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, try_number: int = 1) -> str:
        """The task's log as text."""
        path = (
            f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/logs/{try_number}"
            f"?map_index={map_index}&full_content=true"
        )
        lines = self.api("GET", path)["content"]
        return "\n".join(
            line if isinstance(line, str) else " ".join(str(value) for value in line.values()) for line in lines
        )
