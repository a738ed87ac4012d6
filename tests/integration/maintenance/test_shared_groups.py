"""File groups of one rewrite, written by several tasks of a run: one commit, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness.sharing_worker import LEASE, environment
from harness.store_documents import record
from harness.tables import lake, local_path, rows_digest, small_files
from pyiceberg.table import Table
from pyiceberg.types import LongType

from airflow_provider_floe.engines.local import group_writer, rewrite_data
from airflow_provider_floe.engines.local.rewrite_group import GroupRewrite, Written
from airflow_provider_floe.errors import CommitConflict, OperationCancelled, VerificationFailed
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.maintenance import sharing
from airflow_provider_floe.maintenance.assess import assess
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.execute import execute
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.maintenance.plan import plan
from airflow_provider_floe.maintenance.request import RunRequest
from airflow_provider_floe.maintenance.sharing import help_item
from airflow_provider_floe.maintenance.verdict import verdict
from airflow_provider_floe.planning.model import Plan, RunMode
from airflow_provider_floe.stores.protocols import FileGroup, OperationStatus
from airflow_provider_floe.tables import Operation, TableRef

EVENTS = TableRef("lake", ("db",), "events")
PARTS = "abcdefgh"
TESTS = Path(__file__).parents[2]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return small_files(lake(tmp_path), 4, parts=PARTS)


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return environment(tmp_path)


def planned(env: Environment, tasks: int = 3) -> Plan:
    request = RunRequest(
        run_id="run-1",
        mode=RunMode.TABLE_CONF,
        table=TableId.of(EVENTS),
        operations=(Operation.REWRITE_DATA_FILES,),
    )
    return plan(env, assess(env, request).id, max_tasks_per_table=tasks)


def helped(env: Environment, made: Plan, cancelled: Callable[[], bool] = lambda: False) -> int:
    return help_item(env, made, made.item(made.helpers[0]), TableLocations(env), cancelled=cancelled)


def helped_and_opened(env: Environment, made: Plan, gate: threading.Event) -> int:
    try:
        return helped(env, made)
    finally:
        gate.set()


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs something in a thread; its result, or what it raised, is in the list when the block ends."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What the thread of the test writes waits for this; what is written elsewhere does not."""
    opened = threading.Event()
    committer = threading.get_ident()
    whole = group_writer.rewrite_group

    def gated(job: GroupRewrite) -> Written:
        if threading.get_ident() == committer:
            assert opened.wait(120)
        return whole(job)

    monkeypatch.setattr(group_writer, "rewrite_group", gated)
    return opened


def worker(tmp_path: Path, made: Plan, *, hang: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness.sharing_worker", tmp_path, made.id, "hang" if hang else "work"]
    return subprocess.Popen([*map(str, command)], cwd=TESTS, env=os.environ.copy(), stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def data_on_disk(table: Table) -> set[str]:
    return {path.name for path in (local_path(table.location()) / "data").rglob("*.parquet")}


def referenced_data(table: Table) -> set[str]:
    return {
        entry.data_file.file_path.rpartition("/")[2]
        for snapshot in table.refresh().metadata.snapshots
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    }


def assert_rewritten_once(table: Table, before: list[Any], snapshots: int, env: Environment, made: Plan) -> None:
    assert rows_digest(table.refresh()) == before
    assert len(table.metadata.snapshots) == snapshots + 1, "one commit for all groups"
    assert len(list(table.scan().plan_files())) == len(PARTS)
    (done,) = env.store.operations(plan_id=made.id, statuses=(OperationStatus.SUCCESS,))
    assert done.result is not None
    assert done.result.files_rewritten == 4 * len(PARTS)
    assert not env.store.file_groups(done.id), "nothing is left of the groups"
    assert not verdict(env, made.id, None).failed


def test_several_tasks_write_and_one_commits(
    tmp_path: Path, env: Environment, table: Table, gate: threading.Event
) -> None:
    before, snapshots = rows_digest(table), len(table.metadata.snapshots)
    made = planned(env)
    assert len(made.batches) == 1
    assert [made.item(one).operation for one in made.helpers] == [Operation.REWRITE_DATA_FILES] * 2
    helpers = [worker(tmp_path, made) for _ in made.helpers]

    def counts() -> list[int]:
        try:
            return [int(said(helper)[1]) for helper in helpers]
        finally:
            gate.set()

    with in_background(counts) as found:
        result = execute(env, made.id, 0, context={})
    assert [helper.wait(30) for helper in helpers] == [0, 0]
    assert sum(found[0]) == len(PARTS) - 1, "all but the one that the committing task has"
    assert [record.status for record in result.records] == [OperationStatus.SUCCESS]
    assert_rewritten_once(table, before, snapshots, env, made)
    assert data_on_disk(table) == referenced_data(table)


def test_the_group_of_a_killed_helper_is_written_by_another(
    tmp_path: Path, env: Environment, table: Table, gate: threading.Event
) -> None:
    before, snapshots = rows_digest(table), len(table.metadata.snapshots)
    made = planned(env)
    helper = worker(tmp_path, made, hang=True)

    def kill() -> list[str]:
        try:
            return said(helper)
        finally:
            helper.kill()
            helper.wait()
            gate.set()

    with in_background(kill) as words:
        execute(env, made.id, 0, context={})
    ((word, path),) = words
    assert word == "wrote"
    assert_rewritten_once(table, before, snapshots, env, made)
    assert path.rpartition("/")[2] not in referenced_data(table)


def test_when_the_committing_task_dies_its_helpers_stop_and_leave_nothing(
    env: Environment, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, snapshots = rows_digest(table), len(table.metadata.snapshots)
    made = planned(env)
    dying = committing_process(table, made)
    word, _ = said(dying)
    assert word == "wrote"
    writing = threading.Event()
    whole = group_writer.rewrite_group

    def hanging(job: GroupRewrite) -> Written:
        written = whole(job)
        writing.set()
        while True:
            job.progress(0)
            time.sleep(0.05)
        return written

    monkeypatch.setattr(group_writer, "rewrite_group", hanging)
    with in_background(lambda: helped(env, made)) as helps:
        assert writing.wait(30)
        monkeypatch.setattr(group_writer, "rewrite_group", whole)
        dying.kill()
        dying.wait()
        time.sleep(LEASE + 0.5)
        execute(env, made.id, 0, context={"try_number": 2})
    assert helps == [0]
    assert_rewritten_once(table, before, snapshots, env, made)
    assert data_on_disk(table) == referenced_data(table)


def committing_process(table: Table, made: Plan) -> subprocess.Popen[str]:
    """The task that commits, in a process of its own, which hangs in its first group."""
    code = (
        "import sys; from pathlib import Path; from harness import sharing_worker; "
        "from airflow_provider_floe.maintenance.execute import execute; sharing_worker.hang_in_a_group(); "
        "execute(sharing_worker.environment(Path(sys.argv[1])), sys.argv[2], 0, context={})"
    )
    folder = str(local_path(table.location()).parents[2])
    command = [sys.executable, "-c", code, folder, made.id]
    return subprocess.Popen(command, cwd=TESTS, env=os.environ.copy(), stdout=subprocess.PIPE, text=True)


def test_a_helper_does_not_write_what_was_not_offered(
    env: Environment, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    before, snapshots = rows_digest(table), len(table.metadata.snapshots)
    made = planned(env)
    offered = sharing.StoreBoard.offer
    helps: list[int] = []

    def offer(*arguments: Any) -> None:
        offered(*arguments)
        with table.refresh().update_schema() as change:
            change.add_column("more", LongType())
        helps.append(helped(env, made))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing.StoreBoard, "offer", offer)
        execute(env, made.id, 0, context={})
    assert helps == [0]
    assert "this task helps no more" in caplog.text
    assert [row[:3] for row in rows_digest(table.refresh())] == before
    assert len(table.metadata.snapshots) == snapshots + 1


def test_a_failed_group_leaves_no_file_of_any_task(
    env: Environment, table: Table, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, on_disk, snapshots = rows_digest(table), data_on_disk(table), len(table.metadata.snapshots)
    made = planned(env)
    whole, committer = group_writer.rewrite_group, threading.get_ident()

    def failing(job: GroupRewrite) -> Written:
        written = whole(job)
        if threading.get_ident() == committer:
            raise VerificationFailed("a row is missing")
        return written

    monkeypatch.setattr(group_writer, "rewrite_group", failing)
    with in_background(lambda: helped_and_opened(env, made, gate)) as helps:
        result = execute(env, made.id, 0, context={})
    assert helps == [len(PARTS) - 1]
    assert [record.status for record in result.records] == [OperationStatus.FAILED]
    assert data_on_disk(table) == on_disk
    assert rows_digest(table.refresh()) == before
    assert len(table.metadata.snapshots) == snapshots


def test_helpers_take_part_in_partial_progress(tmp_path: Path, table: Table, gate: threading.Event) -> None:
    env = environment(tmp_path, partialProgressEnabled=True, partialProgressMaxCommits=4)
    before, snapshots = rows_digest(table), len(table.metadata.snapshots)
    made = planned(env)
    with in_background(lambda: helped_and_opened(env, made, gate)) as helps:
        result = execute(env, made.id, 0, context={})
    assert helps == [len(PARTS) - 1]
    assert [record.status for record in result.records] == [OperationStatus.SUCCESS]
    assert rows_digest(table.refresh()) == before
    assert len(table.metadata.snapshots) == snapshots + 4
    assert data_on_disk(table) == referenced_data(table)


def test_what_helpers_wrote_goes_when_the_commit_does_not_go_through(
    env: Environment, table: Table, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = data_on_disk(table)
    made = planned(env)

    def conflict(*_: Any, **__: Any) -> Any:
        raise CommitConflict("others came first")

    monkeypatch.setattr(rewrite_data, "commit_replace", conflict)
    with in_background(lambda: helped_and_opened(env, made, gate)) as helps:
        execute(env, made.id, 0, context={})
    assert helps == [len(PARTS) - 1]
    assert data_on_disk(table) == on_disk


def test_a_helper_that_is_not_needed_ends(env: Environment, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(env)
    with pytest.raises(OperationCancelled):
        helped(env, made, cancelled=lambda: True)
    monkeypatch.setattr(sharing, "PATIENCE_SECONDS", 0.0)
    assert helped(env, made) == 0, "nobody has begun"
    execute(env, made.id, 0, context={})
    monkeypatch.undo()
    assert helped(env, made) == 0, "it is done"
    assert execute(env, made.id, 1, context={}).records == (), "a helper has no records of its own"


@pytest.mark.parametrize("failure", [None, RuntimeError("the catalog is away")], ids=["over", "broken"])
def test_a_helper_that_cannot_help_ends_well(
    env: Environment, table: Table, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    """The operation came to its end, and its groups went, right after the helper saw them; or anything else failed."""
    made = planned(env)
    at_work = record(
        table=EVENTS,
        operation=Operation.REWRITE_DATA_FILES,
        plan_id=made.id,
        item_id=made.helpers[0],
        lease_token="another's",
    )
    env.store.save_operation(at_work)
    env.store.offer_file_groups(at_work.id, [FileGroup(number=0, snapshot_id=1, size_bytes=1, digest="")])

    def claimed(board: sharing.StoreBoard) -> sharing.StoreBoard:
        if failure is not None:
            monkeypatch.setattr(rewrite_data, "_prepare", failing)
        else:
            env.store.drop_file_groups(at_work.id)
        return entered(board)

    def failing(*_: Any, **__: Any) -> Any:
        raise failure or AssertionError

    entered = sharing.StoreBoard.__enter__
    monkeypatch.setattr(sharing.StoreBoard, "__enter__", claimed)
    assert helped(env, made) == 0


def test_without_a_request_nobody_helps(env: Environment, table: Table) -> None:
    assert planned(env, tasks=1).helpers == ()
