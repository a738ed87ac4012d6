"""What is asked of a Livy server, and what is made of its answers: a server in memory loses and refuses at will."""

from __future__ import annotations

import pytest
from livy_in_memory import Answered, Memory

from airflow_provider_floe.engines.base import JobState
from airflow_provider_floe.engines.spark.livy_server import Death, LivyServer, death
from airflow_provider_floe.errors import ConfigurationError, EngineUnavailable, FloeError

BODY = {"file": "s3a://bucket/job.py", "name": "floe-1", "args": []}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def server(memory: Memory) -> LivyServer:
    return LivyServer(memory, "c")


def test_a_batch_whose_answer_was_lost_is_found_by_its_name(memory: Memory, server: LivyServer) -> None:
    memory.lose = ("POST",)
    assert server.submit(BODY).id == 0
    memory.lose = ()
    assert server.submit(BODY).id == 0
    assert len(memory.batches) == 1


def test_a_request_that_did_not_arrive_leaves_no_batch(memory: Memory, server: LivyServer) -> None:
    def cut(method: str, path: str) -> Answered | None:
        if method == "POST":
            raise EngineUnavailable("Livy of connection 'c' does not answer")
        return None

    memory.before = cut
    with pytest.raises(EngineUnavailable, match="'c' does not answer"):
        server.submit(BODY)
    assert server.find("floe-1") is None


def test_a_batch_that_livy_refuses_does_not_keep_its_name(memory: Memory, server: LivyServer) -> None:
    with pytest.raises(ConfigurationError, match=r"'c' refuses the batch: .*Local path.*floe_livy_job_file"):
        server.submit({**BODY, "file": "file:///etc/job.py"})
    assert not memory.batches
    assert server.submit(BODY).state is JobState.RUNNING


def test_too_many_batches_are_worth_another_try(memory: Memory, server: LivyServer) -> None:
    memory.before = lambda method, path: (400, {"msg": "Rejected, too many sessions"}) if method == "POST" else None
    with pytest.raises(EngineUnavailable, match="takes no more batches now"):
        server.submit(BODY)


def test_an_id_that_was_given_to_another_batch_is_not_taken_for_ours(memory: Memory, server: LivyServer) -> None:
    memory.add("someone-elses")
    assert server.get(0, "floe-1") is None
    ours = memory.add("floe-1", "success")
    found = server.get(0, "floe-1")
    assert found is not None
    assert (found.id, found.state) == (ours["id"], JobState.FINISHED)


def test_a_batch_is_found_among_many(memory: Memory, server: LivyServer) -> None:
    for number in range(205):
        memory.add(f"other-{number}")
    memory.add("floe-1")
    found = server.find("floe-1")
    assert found is not None
    assert found.id == 205
    server.delete(found.id)
    server.delete(found.id)
    assert server.find("floe-1") is None


def test_a_server_that_keeps_no_names_is_refused_and_runs_nothing(memory: Memory, server: LivyServer) -> None:
    def nameless(method: str, path: str) -> Answered | None:
        return (201, {"id": memory.add("")["id"], "state": "starting"}) if method == "POST" else None

    memory.before = nameless
    with pytest.raises(ConfigurationError, match=r"'c' does not keep the names"):
        server.submit(BODY)
    assert not memory.batches


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (401, ConfigurationError, r"'c' refuses the credentials \(HTTP 401\): check login"),
        (403, ConfigurationError, "refuses the credentials"),
        (404, ConfigurationError, r"no Livy at the address of connection 'c' \(http://livy:8998\)"),
        (502, EngineUnavailable, r"'c' answers with HTTP 502 \(bad gateway\)"),
    ],
)
def test_what_a_server_refuses_is_told(
    memory: Memory, server: LivyServer, status: int, error: type[FloeError], told: str
) -> None:
    memory.before = lambda method, path: (status, {"msg": "bad gateway"})
    for ask in (lambda: server.submit(BODY), lambda: server.find("floe-1")):
        with pytest.raises(error, match=told):
            ask()


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("not_started", JobState.RUNNING),
        ("starting", JobState.RUNNING),
        ("recovering", JobState.RUNNING),
        ("running", JobState.RUNNING),
        ("success", JobState.FINISHED),
        ("dead", JobState.FAILED),
        ("killed", JobState.FAILED),
        ("error", JobState.FAILED),
    ],
)
def test_only_a_batch_that_is_over_counts_as_over(
    memory: Memory, server: LivyServer, word: str, state: JobState
) -> None:
    memory.add("floe-1", word)
    found = server.find("floe-1")
    assert found is not None
    assert found.state is state


def test_a_log_tells_the_exception_or_that_there_is_no_table_and_nothing_more() -> None:
    lines = [
        "stdout: ",
        "Traceback (most recent call last):",
        "py4j.protocol.Py4JJavaError: An error occurred while calling o35.sql.",
        ": org.apache.iceberg.exceptions.NotFoundException: password=hush",
        'Exception in thread "main" org.apache.spark.SparkUserAppException: User application exited with 71',
    ]
    assert death(lines) == Death(exception="org.apache.iceberg.exceptions.NotFoundException")
    assert death(lines[-1:]) == Death(exception="org.apache.spark.SparkUserAppException")
    assert death(["floe: `lake`.`a`.`t` cannot be loaded: {'type': 'ParseException', 'message': ''}"]).no_table
    assert death([]) == Death()
