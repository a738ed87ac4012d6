"""Which files nothing references any more once snapshots are gone (promise 11)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pyiceberg.table import Table

from airflow_provider_floe.iceberg.held_files import HeldFiles, hashes
from airflow_provider_floe.iceberg.reachability import ReferenceWalk


@dataclass(frozen=True)
class Unreachable:
    """What one state of a table references and another does not.

    :ivar files: without metadata files, which always stay (promise 4).
    :ivar walk: has walked through all that the other state references, unless there are no files.
    """

    files: HeldFiles
    walk: ReferenceWalk

    def confirmed(self, before: Table, after: Table) -> Unreachable:
        """The same, held against the table as it is now: anything that it references anew is left out.

        Costs only what is new, unless snapshots that were to stay are gone as well; then all is computed anew.
        """
        if not len(self.files):
            return self
        lists = {snapshot.manifest_list for snapshot in after.metadata.snapshots}
        if not self.walk.manifest_lists <= lists:
            return unreachable_after(before, after)
        self._drop_referenced(after, None)
        return self

    def _drop_referenced(self, table: Table, snapshots: Collection[int] | None) -> None:
        for found in self.walk.new_batches(table, snapshots):
            self.files.drop(hashes(found.paths))


def unreachable_after(before: Table, after: Table, *, without: Collection[int] = ()) -> Unreachable:
    """Exactly what ``before`` references and ``after`` does not (promise 11).

    It knows nothing of how the snapshots between the two were chosen. Manifests that both share are opened once;
    their files are not held in memory, and of files of manifests that are gone a few bytes each.

    :param without: snapshots of ``after`` to count as gone: foretells what removing them would leave behind.
    :raises TableUnreadable: or UnsafeOperation, see :meth:`ReferenceWalk.new_batches`.
    """
    gone_ids = frozenset(without)
    found = Unreachable(HeldFiles(), ReferenceWalk())
    kept = [s for s in after.metadata.snapshots if s.snapshot_id not in gone_ids]
    kept_ids = {s.snapshot_id for s in kept}
    kept_lists = {s.manifest_list for s in kept}
    gone = {s.snapshot_id for s in before.metadata.snapshots if s.manifest_list not in kept_lists}
    gone |= {s.snapshot_id for s in (*before.metadata.statistics, *before.metadata.partition_statistics)} - kept_ids
    if gone:
        found.walk.read_lists(after, kept)
        old = ReferenceWalk()
        old.skip_manifests(found.walk.manifests)
        for batch in old.new_batches(before, gone):
            found.files.add(batch)
    found.files.close()
    if gone:
        found._drop_referenced(after, kept_ids if without else None)
    return found
