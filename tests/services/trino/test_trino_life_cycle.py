"""A query that must not go on is gone from the server; one that was lost is found again or left open, never guessed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread

import pytest
from harness.services.base import Facts
from harness.services.brake import CommitBrake
from harness.tables import FakeContext, rows, rows_digest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException, RESTError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation as SnapshotOperation
from trino.dbapi import connect
from trino_server import PARTITIONS, Server, braked_catalog, many_small_files, now_context, run, small_files

from airflow_provider_floe.engines import remote
from airflow_provider_floe.engines.base import JobState, JobStatus, OperationRequest, RemoteJob
from airflow_provider_floe.engines.remote import wait_and_collect
from airflow_provider_floe.engines.trino.engine import TrinoEngine
from airflow_provider_floe.errors import (
    CommitConflict,
    CommitOutcomeUnknown,
    EngineUnavailable,
    JobTakenOver,
    LeaseLost,
    OperationCancelled,
    VerificationFailed,
)
from airflow_provider_floe.policies.model import ExpireSnapshots, RewriteDataFiles
from airflow_provider_floe.tables import Operation, TableRef

pytestmark = pytest.mark.services

REWRITE = (Operation.REWRITE_DATA_FILES, RewriteDataFiles())


@pytest.fixture
def slow_table(catalog: RestCatalog, namespace: str) -> Table:
    return many_small_files(catalog, (namespace, "t"))


def query_state(server: Server, context: FakeContext) -> tuple[str, str | None]:
    (query_id,) = context.remote_jobs
    ((state, error),) = server.rows(
        f"SELECT state, error_code FROM system.runtime.queries WHERE query_id = '{query_id}'"
    )
    return state, error


@pytest.fixture(scope="module")
def braked(server: Server, services: dict[str, Facts]) -> Iterator[tuple[CommitBrake, TrinoEngine]]:
    """An engine whose commits a test can hold up."""
    with braked_catalog(server, services) as (brake, name):
        yield brake, server.engine({"lake": name})


def when_held(brake: CommitBrake, do: Callable[[], object]) -> Callable[[], None]:
    """For a context's ``on_checkpoint``: does something, once, when the query has all done but its commit."""
    brake.hold()
    before, done = brake.held, False

    def checkpoint() -> None:
        nonlocal done
        if not done and brake.held > before:
            done = True
            do()

    return checkpoint


@pytest.mark.parametrize("stop", [OperationCancelled("cleared"), LeaseLost("taken over"), SystemExit(1)], ids=repr)
def test_what_stops_the_operation_cancels_the_query(
    server: Server, braked: tuple[CommitBrake, TrinoEngine], slow_table: Table, stop: BaseException
) -> None:
    brake, engine = braked
    before = slow_table.metadata.current_snapshot_id

    def raise_it() -> None:
        raise stop

    context = now_context(slow_table, on_checkpoint=when_held(brake, raise_it))
    with pytest.raises(type(stop)):
        run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    assert query_state(server, context) == ("FAILED", "ADMINISTRATIVELY_KILLED")
    brake.drop()
    assert slow_table.refresh().metadata.current_snapshot_id == before


def test_a_job_that_another_run_took_over_is_left_to_it(
    server: Server, braked: tuple[CommitBrake, TrinoEngine], slow_table: Table
) -> None:
    brake, engine = braked

    def taken() -> None:
        raise JobTakenOver("another try has it")

    context = now_context(slow_table, on_checkpoint=when_held(brake, taken))
    with pytest.raises(JobTakenOver):
        run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    (query_id,) = context.remote_jobs
    state, _ = query_state(server, context)
    assert state not in ("FINISHED", "FAILED")
    brake.release()
    request = OperationRequest("op", TableRef("lake", slow_table.name()[:-1], "t"), *REWRITE)
    result = wait_and_collect(engine, request, now_context(slow_table), context.jobs[query_id])
    assert result.files_added == PARTITIONS


def test_a_query_begins_only_when_it_is_on_record(server: Server, engine: TrinoEngine, slow_table: Table) -> None:
    context = now_context(slow_table)
    known: list[object] = []

    def die(_: int) -> None:
        known.append(server.queries("never"))
        raise SystemExit(1)

    context.on_committing = die
    with pytest.raises(SystemExit):
        run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context, operation_id="never")
    assert (known, server.queries("never")) == ([[]], [])
    (query_id,) = context.remote_jobs
    assert engine.cancel(query_id), "the server knows of nothing to cancel"


def test_a_writer_that_deletes_meanwhile_wins(braked: tuple[CommitBrake, TrinoEngine], slow_table: Table) -> None:
    brake, engine = braked
    other = slow_table.catalog.load_table(slow_table.name())

    def delete() -> None:
        other.delete("part == 'p0'")
        brake.release()

    context = now_context(slow_table, on_checkpoint=when_held(brake, delete))
    with pytest.raises(CommitConflict, match="others kept committing"):
        run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    assert len(rows_digest(slow_table)) == 4 * (PARTITIONS - 1)
    assert slow_table.metadata.snapshots[-1].summary.operation is SnapshotOperation.DELETE  # type: ignore[union-attr]


def test_what_is_appended_meanwhile_stays(braked: tuple[CommitBrake, TrinoEngine], slow_table: Table) -> None:
    brake, engine = braked
    other = slow_table.catalog.load_table(slow_table.name())

    def append() -> None:
        other.append(rows(9_000, 3, "p0"))
        brake.release()

    context = now_context(slow_table, on_checkpoint=when_held(brake, append))
    result = run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    assert result.files_added == PARTITIONS
    assert len(rows_digest(slow_table)) == 4 * PARTITIONS + 3


class Proxy:
    """Stands between client and server, and cuts the line when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lines: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._refusing = 0
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            if self._refusing:
                self._refusing -= 1
                line.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._lines += [line, server]
            for one, other in ((line, server), (server, line)):
                Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                end.close()

    def cut(self, *, refuse: int) -> None:
        """Break what is open, and refuse so many new connections."""
        self._refusing = refuse
        for line in self._lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._lines.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut(refuse=0)


@contextmanager
def proxied(server: Server) -> Iterator[tuple[Proxy, TrinoEngine]]:
    proxy = Proxy(int(server.facts["port"]))
    engine = TrinoEngine(
        lambda: connect("127.0.0.1", proxy.port, user="tester", max_attempts=1),
        {"lake": "lake"},
        connection="far_trino",
    )
    try:
        yield proxy, engine
    finally:
        proxy.close()


def running(context: FakeContext) -> bool:
    """Whether the query has been seen to run."""
    return any("/executing/" in str(job.state["next_uri"]) for job in context.jobs.values())


def once(condition: Callable[[], bool], do: Callable[[], object]) -> Callable[[], None]:
    done = False

    def checkpoint() -> None:
        nonlocal done
        if not done and condition():
            done = True
            do()

    return checkpoint


def test_a_query_whose_connection_was_lost_is_found_again(server: Server, slow_table: Table) -> None:
    context = now_context(slow_table)
    with proxied(server) as (proxy, engine):
        engine.probe()
        context.on_checkpoint = once(lambda: running(context), lambda: proxy.cut(refuse=2))
        result = run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    assert result.files_added == PARTITIONS
    assert query_state(server, context) == ("FINISHED", None)


def test_a_query_that_cannot_be_asked_about_any_more_leaves_the_outcome_open(
    server: Server, slow_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 2)
    context = now_context(slow_table)
    with proxied(server) as (proxy, engine):
        engine.probe()
        context.on_checkpoint = once(lambda: running(context), lambda: proxy.cut(refuse=1_000))
        with pytest.raises(CommitOutcomeUnknown, match="'far_trino'") as unknown:
            run(engine, slow_table, Operation.REWRITE_DATA_FILES, RewriteDataFiles(), context)
    (query_id,) = context.remote_jobs
    assert query_id in str(unknown.value)
    assert server.engine({}).cancel(query_id)
    assert query_state(server, context)[0] in ("FAILED", "FINISHED")


def polled(engine: TrinoEngine, job: RemoteJob) -> JobStatus:
    """What is said of a job once it is over."""
    deadline, status = time.monotonic() + 60, engine.poll(job)
    while status.state is JobState.RUNNING:
        assert time.monotonic() < deadline
        status = engine.poll(status.job)
    return status


def test_what_another_process_has_fetched_further_is_looked_up(
    server: Server, engine: TrinoEngine, slow_table: Table
) -> None:
    context = now_context(slow_table)
    request = OperationRequest("op", TableRef("lake", slow_table.name()[:-1], "t"), *REWRITE)
    sent = engine.submit(request, context)
    assert isinstance(sent, RemoteJob)
    assert engine.poll(sent).state is engine.poll(sent).state is JobState.RUNNING, "the last answer is given again"
    assert polled(engine, sent).state is JobState.FINISHED
    late = polled(engine, sent)  # the first answer can be that of the queue, which the query has left
    assert late.state is JobState.FINISHED
    assert engine.collect(request, context, late).files_added == PARTITIONS
    forgotten = RemoteJob(id="20200101_000000_00000_aaaaa", state={**sent.state, "next_uri": f"{server.address}/v1/x"})
    assert engine.poll(forgotten).state is JobState.GONE
    with pytest.raises(EngineUnavailable, match="does not know query 20200101"):
        engine.collect(request, context, engine.poll(forgotten))


def test_an_expiry_that_committed_before_it_was_cancelled_is_one(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str
) -> None:
    table = small_files(catalog, (namespace, "t"), 3)
    time.sleep(1.1)
    context = now_context(table)

    def wait_for_the_commit() -> None:
        deadline = time.monotonic() + 60
        while len(context.load_table().metadata.snapshots) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise OperationCancelled("cleared")

    context.on_checkpoint = once(lambda: running(context), wait_for_the_commit)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(seconds=1))
    result = run(engine, table, Operation.EXPIRE_SNAPSHOTS, settings, context)
    assert result.snapshots_expired == 2
    assert result.files_deleted + result.details["left_over"] == len(context.journal.deletions) > 0


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.08])
def test_a_tag_that_is_made_while_its_snapshot_expires_is_never_lost_in_silence(
    engine: TrinoEngine, catalog: RestCatalog, namespace: str, delay: float
) -> None:
    table = small_files(catalog, (namespace, "t"), 6)
    time.sleep(1.1)
    other = catalog.load_table((namespace, "t"))
    made = False

    def make_tag() -> None:
        nonlocal made
        time.sleep(delay)
        try:
            other.manage_snapshots().create_tag(other.metadata.snapshots[2].snapshot_id, "late").commit()
            made = True
        except (RESTError, CommitFailedException):
            pass  # the snapshot was gone, or the table changed

    context = now_context(table)
    context.on_checkpoint = once(lambda: running(context), make_tag)
    settings = ExpireSnapshots(retain_last=1, max_snapshot_age=timedelta(seconds=1))
    told = ""
    try:
        run(engine, table, Operation.EXPIRE_SNAPSHOTS, settings, context)
    except VerificationFailed as error:
        told = str(error)
    assert ("late" in table.metadata.refs or "late of" in told) is made
