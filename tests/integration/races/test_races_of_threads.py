"""Writers that go on committing from threads and clients of their own while a table is maintained all the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from harness.merge_on_read import equality_delete, position_delete
from harness.oracle import Digest, oracle_digest
from harness.tables import context_for, local_path, referenced_files, rows
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from racing import IDS, SETTINGS, Client, check_rows, clients, position_of, prepared, run

from airflow_provider_floe.errors import CommitConflict
from airflow_provider_floe.tables import Operation

COMMITS = 5
"""Of each writer."""


@pytest.mark.parametrize("catalog", ["sql", "rest"])
def test_no_row_is_lost_and_none_comes_back(tmp_path: Path, catalog: str) -> None:
    with clients(catalog, tmp_path) as client:
        table = prepared(client())
        ours: list[str] = []
        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write, client) for write in (_append, _delete_by_key, _delete_by_position, _tag)]
            while not all(writer.done() for writer in writers):
                for operation in SETTINGS:
                    # to one whose clock is years ahead, files that are written for a commit to come are orphans
                    if operation is not Operation.REMOVE_ORPHAN_FILES:
                        ours += _maintain(client, operation)
            for writer in writers:
                writer.result()
        tags = writers[3].result()
        table.refresh()
        expected = (IDS | set(range(1000, 1000 + 10 * COMMITS))) - set(_KEYS) - set(_BY_POSITION)
        check_rows(table, expected, tmp_path)
        assert {name: oracle_digest(table.metadata_location, table.refs()[name].snapshot_id) for name in tags} == tags
        named = referenced_files(table)
        assert [path for path in named if not local_path(path).exists()] == []
        assert [path for path in ours if path not in named and local_path(path).exists()] == []


def _maintain(client: Client, operation: Operation) -> list[str]:
    """What the operation announced that it would write."""
    table = client().load_table("db.events")
    context = context_for(table)
    with suppress(CommitConflict):  # nothing was changed: the next round tries again
        run(table, operation, context)
    return context.journal.outputs


_KEYS = range(10, 10 + COMMITS)
_BY_POSITION = range(20, 20 + COMMITS)


def _append(client: Client) -> None:
    for number in range(COMMITS):
        _commit(client, lambda table, number=number: table.append(rows(1000 + 10 * number, 10)))  # type: ignore[misc]


def _delete_by_key(client: Client) -> None:
    for one in _KEYS:
        _commit(client, lambda table, one=one: equality_delete(table, rows(one, 1), ["id"]))  # type: ignore[misc]


def _delete_by_position(client: Client) -> None:
    def delete(table: Table, one: int) -> None:
        # pyiceberg would commit again on another head, where the file may be gone
        table.metadata.properties["commit.retry.num-retries"] = "0"
        position_delete(table, position_of(table, one))

    for one in _BY_POSITION:
        _commit(client, lambda table, one=one: delete(table, one))  # type: ignore[misc]


def _tag(client: Client) -> dict[str, Digest]:
    """What the snapshots hold that were tagged."""
    chance, found = random.Random(7), {}

    def tag(table: Table, name: str) -> None:
        chosen = chance.choice(table.metadata.snapshots).snapshot_id
        digest = oracle_digest(table.metadata_location, chosen)
        table.manage_snapshots().create_tag(chosen, name).commit()
        found[name] = digest

    for number in range(COMMITS):
        _commit(client, lambda table, number=number: tag(table, f"tag-{number}"))  # type: ignore[misc]
    return found


def _commit(client: Client, act: Callable[[Table], object]) -> object:
    """Commit on the table as it is, again while others come first, or what was read expires meanwhile."""
    while True:
        table = client().load_table("db.events")
        read = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
        try:
            return act(table)
        except CommitFailedException:
            continue
        except Exception:
            if read <= {snapshot.snapshot_id for snapshot in client().load_table("db.events").metadata.snapshots}:
                raise
