"""Every operation against every kind of commit that another client makes meanwhile, on SQL and REST catalogs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.tables import context_for
from pyiceberg.table import Table
from racing import SETTINGS, WRITERS, check, clients, prepared, run, stray_of

from airflow_provider_floe.errors import CommitConflict
from airflow_provider_floe.tables import Operation

CONFLICTS = {
    (Operation.REWRITE_DATA_FILES, "position delete"): "new deletes",
    (Operation.REWRITE_DATA_FILES, "overwrite"): "no longer live",
    (Operation.REWRITE_DATA_FILES, "rewrite"): "no longer live",
    (Operation.REWRITE_MANIFESTS, "rewrite"): "have been replaced meanwhile",
    (Operation.REWRITE_POSITION_DELETE_FILES, "rewrite"): "were replaced meanwhile",
}
"""Where the other's commit leaves nothing that ours could go on with; anything else must go through."""


@pytest.mark.parametrize(
    ("catalog", "moment"), [("sql", "reading"), ("sql", "committing"), ("rest", "committing")], ids="-".join
)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("operation", SETTINGS)
def test_a_commit_of_another_meanwhile(
    tmp_path: Path, operation: Operation, writer: str, catalog: str, moment: str
) -> None:
    act, ids = WRITERS[writer]
    with clients(catalog, tmp_path) as client:
        table = prepared(client())
        once = OnceLoaded(table, lambda: act(client().load_table(table.name())))
        # removing orphans commits nothing: what it chose is held against the table before each batch of deletes
        committing = moment == "committing" and operation is not Operation.REMOVE_ORPHAN_FILES
        context = context_for(table, **{"on_committing" if committing else "on_checkpoint": once})
        context.table_loader = once.load
        if (words := CONFLICTS.get((operation, writer))) is not None:
            with pytest.raises(CommitConflict, match=words):
                run(table, operation, context)
        else:
            assert run(table, operation, context).changed
        assert once.acted
        assert stray_of(table).exists() == (operation is not Operation.REMOVE_ORPHAN_FILES)
        check(table, ids, tmp_path)
        again = run(table, operation)
        assert again.changed or (operation, writer) not in CONFLICTS or writer == "rewrite"
        check(table, ids, tmp_path)


class OnceLoaded:
    """Acts at its first call after an operation has loaded the table."""

    def __init__(self, table: Table, act: Callable[[], None]) -> None:
        self._table, self._act = table, act
        self._loaded = self.acted = False

    def load(self) -> Table:
        self._loaded = True
        return self._table.catalog.load_table(self._table.name())

    def __call__(self, *_: object) -> None:
        if self._loaded and not self.acted:
            self.acted = True
            self._act()
