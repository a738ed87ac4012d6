"""What becomes of a rewrite when the catalog fails, the lease goes, or the process dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.tables import context_for, data_files, lake, local_path, missing_files, small_files, stored_files
from pyiceberg.exceptions import BadRequestError, CommitFailedException, ForbiddenError
from pyiceberg.table import Table
from rewriting import MEMORY, ids, rewrite, rewrite_all_manifests

from airflow_provider_floe.errors import (
    CommitOutcomeUnknown,
    ConfigurationError,
    LeaseLost,
    OperationCancelled,
    VerificationFailed,
)


class Killed(BaseException):
    """Stands for a process that ends: no ``except Exception`` sees it."""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return small_files(lake(tmp_path), 3)


def failing_catalog(table: Table, monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: bool) -> None:
    """The first commit raises, after or before the catalog has applied it."""
    real = table.catalog.commit_table
    raised = []

    def commit(*args: Any) -> Any:
        if raised:
            return real(*args)
        raised.append(True)
        if after:
            real(*args)
        raise error

    monkeypatch.setattr(type(table.catalog), "commit_table", lambda _self, *args: commit(*args))


@pytest.mark.parametrize("run", [rewrite, rewrite_all_manifests])
def test_a_commit_that_happened_though_its_answer_was_lost_is_a_success(
    table: Table, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    failing_catalog(table, monkeypatch, ConnectionError("reset"), after=True)
    context = context_for(table)
    assert run(table, context).changed
    assert len(context.commits_done) == 1
    assert ids(table) == [*range(30)]
    assert missing_files(table) == []


@pytest.mark.parametrize("run", [rewrite, rewrite_all_manifests])
def test_a_commit_of_unknown_outcome_deletes_nothing(table: Table, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    failing_catalog(table, monkeypatch, TimeoutError("no answer"), after=False)
    context = context_for(table)
    with pytest.raises(CommitOutcomeUnknown, match="no answer"):
        run(table, context)
    assert context.journal.outputs
    assert all(local_path(path).exists() for path in context.journal.outputs)
    assert context.commits_done == []


@pytest.mark.parametrize(
    "refusal",
    [CommitFailedException("repeated by a proxy"), ForbiddenError("token ran out"), BadRequestError("snapshot exists")],
    ids=repr,
)
def test_a_refusal_of_a_commit_that_happened_is_recognised(
    table: Table, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    failing_catalog(table, monkeypatch, refusal, after=True)
    context = context_for(table)
    assert rewrite(table, context).changed
    assert len(context.commits_begun) == len(context.commits_done) == 1
    assert ids(table) == [*range(30)]
    assert missing_files(table) == []


@pytest.mark.parametrize("run", [rewrite, rewrite_all_manifests])
def test_a_forbidden_commit_leaves_nothing_behind(table: Table, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    before = stored_files(table)
    failing_catalog(table, monkeypatch, ForbiddenError("read only"), after=False)
    with pytest.raises(ConfigurationError, match="read only"):
        run(table)
    assert stored_files(table) == before
    assert ids(table) == [*range(30)]


def test_a_lost_lease_stops_the_commit_and_leaves_nothing_behind(table: Table) -> None:
    before = stored_files(table)

    def lose(_attempt: int) -> None:
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        rewrite(table, context_for(table, on_committing=lose))
    assert stored_files(table) == before


def test_a_record_that_cannot_be_updated_after_the_commit_is_an_unknown_outcome(table: Table) -> None:
    context = context_for(table)

    def fail(_detail: Any) -> None:
        raise ConnectionError("store down")

    context.committed = fail  # type: ignore[method-assign]
    with pytest.raises(CommitOutcomeUnknown, match="store down"):
        rewrite(table, context)
    assert ids(table) == [*range(30)]
    assert missing_files(table) == []


@pytest.mark.parametrize("settings", [{}, {"strategy": "SORT", "sort_order": ["id desc"]}], ids=["binpack", "sort"])
@pytest.mark.parametrize("checkpoint", [1, 2, 4])
def test_a_cancelled_run_changes_nothing_and_cleans_up(table: Table, checkpoint: int, settings: dict[str, Any]) -> None:
    before = stored_files(table)
    seen = []

    def cancel() -> None:
        seen.append(True)
        if len(seen) == checkpoint:
            raise OperationCancelled("cleared")

    with pytest.raises(OperationCancelled):
        rewrite(table, context_for(table, on_checkpoint=cancel), **settings)
    assert stored_files(table) == before
    assert ids(table) == [*range(30)]


@pytest.mark.parametrize("checkpoint", range(1, 10))
@pytest.mark.parametrize("run", [rewrite, rewrite_all_manifests])
def test_a_killed_run_leaves_the_same_rows_and_its_files_written_ahead(table: Table, run: Any, checkpoint: int) -> None:
    before = stored_files(table)
    seen = []

    def kill() -> None:
        seen.append(True)
        if len(seen) == checkpoint:
            raise Killed

    context = context_for(table, on_checkpoint=kill)
    try:
        run(table, context)
    except Killed:
        left = {path for path in stored_files(table) - before if path.suffix != ".json"}
        assert left <= {local_path(path) for path in context.journal.outputs}
    table.refresh()
    assert ids(table) == [*range(30)]
    assert missing_files(table) == []
    run(table)
    assert ids(table) == [*range(30)]


def test_a_writer_that_loses_rows_is_caught_before_the_commit(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_floe.engines.local.reader import GroupReader

    before = stored_files(table)
    real = GroupReader.batches
    monkeypatch.setattr(GroupReader, "batches", lambda self, file: (batch.slice(1) for batch in real(self, file)))
    with pytest.raises(VerificationFailed, match="27 rows were written, but 30"):
        rewrite(table)
    assert stored_files(table) == before
    assert len(data_files(table)) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda batch, pc, pa: pa.nulls(batch.num_rows, batch.schema.field("text").type), "nulls"),
        (lambda batch, pc, pa: pc.utf8_reverse(batch["text"]), "spans"),
    ],
    ids=["values become null", "values change"],
)
def test_a_reader_that_spoils_a_column_is_caught_before_the_commit(
    table: Table, monkeypatch: pytest.MonkeyPatch, spoil: Any, message: str
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    from airflow_provider_floe.engines.local.reader import GroupReader

    real = GroupReader.batches

    def batches(self: GroupReader, file: Any) -> Any:
        for batch in real(self, file):
            yield pa.RecordBatch.from_arrays([*batch.columns[:2], spoil(batch, pc, pa)], schema=batch.schema)

    monkeypatch.setattr(GroupReader, "batches", batches)
    with pytest.raises(VerificationFailed, match=message):
        rewrite(table)
    assert len(data_files(table)) == 3


def test_groups_side_by_side_make_the_same_table(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=tuple("abcdef"))
    context = context_for(table)
    assert rewrite(table, context, memory=4 * MEMORY).files_rewritten == 18
    assert ids(table) == [*range(180)]
    assert len(data_files(table)) == 6
    assert context.progressed[-1][0] == context.progressed[-1][1] > 0


def test_one_group_that_fails_takes_the_others_files_along(tmp_path: Path) -> None:
    table = small_files(lake(tmp_path), 3, parts=tuple("abcdef"))
    before = stored_files(table)
    seen = []

    def cancel() -> None:
        seen.append(True)
        if len(seen) == 12:
            raise OperationCancelled("cleared")

    with pytest.raises(OperationCancelled):
        rewrite(table, context_for(table, on_checkpoint=cancel), memory=4 * MEMORY)
    assert stored_files(table) == before
    assert ids(table) == [*range(180)]
