"""Deletes files of a table: within caps, journaled first, spared when referenced anew, set aside where asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from pyiceberg.io import FileIO
from pyiceberg.table import Table

from airflow_provider_floe.engines.base import Deletion, OperationContext
from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg.listing import delete_files, file_size, in_batches, move_file
from airflow_provider_floe.iceberg.paths import is_under, normalise, path_keys, relative_to, same_store
from airflow_provider_floe.iceberg.reachability import ReferenceWalk
from airflow_provider_floe.policies.model import DeletionSafety
from airflow_provider_floe.text import bytes_text

log = logging.getLogger(__name__)

QUARANTINE_FOLDER = "_floe_quarantine"
"""Below the table's location; the files of each operation stand in a folder of its id."""

_BATCH = 1_000
_LARGEST_BATCH = 10_000
_BATCHES = 50
"""What many files are deleted in, as the table is loaded again before each batch."""
_MOVES = 64
_MOVERS = 8


@dataclass(frozen=True)
class Deletions:
    """Files that are to go, made one by one as they are asked for: there may be millions.

    :ivar each: begins anew at each call.
    """

    count: int
    size_bytes: int
    each: Callable[[], Iterator[Deletion]]

    @classmethod
    def of(cls, deletions: Sequence[Deletion]) -> Deletions:
        """Those of a list."""
        return cls(len(deletions), sum(deletion.size_bytes for deletion in deletions), lambda: iter(deletions))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Deletion]:
        return self.each()


@dataclass(frozen=True)
class DeletionOutcome:
    """What became of the files that were to go.

    :ivar spared: files that a concurrent commit referenced before their turn came.
    """

    deleted: int = 0
    bytes_deleted: int = 0
    quarantined: int = 0
    bytes_quarantined: int = 0
    spared: int = 0

    def __add__(self, other: DeletionOutcome) -> DeletionOutcome:
        return DeletionOutcome(
            self.deleted + other.deleted,
            self.bytes_deleted + other.bytes_deleted,
            self.quarantined + other.quarantined,
            self.bytes_quarantined + other.bytes_quarantined,
            self.spared + other.spared,
        )


def check_caps(settings: DeletionSafety, *, files: int, size_bytes: int, of_files: int) -> None:
    """Halt before anything is deleted when a run would delete more than the policy allows (promise 18).

    :param of_files: the number of files that ``maxDeleteShare`` refers to.
    :raises UnsafeOperation: naming the cap, its value and what was found.
    """
    share = files / of_files if of_files else 0.0
    for name, cap, found, text in (
        ("maxDeleteFiles", settings.max_delete_files, files, f"{files} files"),
        ("maxDeleteBytes", settings.max_delete_bytes, size_bytes, bytes_text(size_bytes)),
        ("maxDeleteShare", settings.max_delete_share, share, f"{files} of {of_files} files ({share:.1%})"),
    ):
        if cap is not None and found > cap:
            raise UnsafeOperation(
                f"{name}={cap} would be exceeded: {text} would be deleted, so none was. "
                f"If that many are right to go, raise {name} in the policy"
            )


def delete_unreferenced(
    context: OperationContext, table: Table, deletions: Deletions, walk: ReferenceWalk
) -> DeletionOutcome:
    """Delete, or move where ``quarantined_to`` says so, in batches.

    Before each batch the table is loaded again, and what it references by then is spared (promise 2); then the batch
    is journaled (promise 18), then deleted.

    :param table: the table for which the deletions were chosen.
    :param walk: has walked through everything that the table referenced when the deletions were chosen.
    :raises UnsafeOperation: when another table stands in its place.
    :raises LeaseLost: or OperationCancelled, between batches; what stands in the journal as deleted is.
    """
    outcome = DeletionOutcome()
    referenced: set[str] = set()
    name = ".".join(table.name())
    for done, batch in _numbered(deletions):
        context.checkpoint()
        current = context.load_table()
        if current.metadata.table_uuid != table.metadata.table_uuid:
            raise UnsafeOperation(f"{name} is another table now (its uuid changed): the deletion was stopped")
        for found in walk.new_batches(current):
            referenced.update(path_keys(found.paths))
        keys = path_keys([deletion.path for deletion in batch]) if referenced else ()
        going = [one for one, key in zip(batch, keys, strict=True) if key not in referenced] if keys else batch
        context.journal.record_deletions(going)
        outcome += _carry_out(current.io, going, context.journal.mark_deleted)
        outcome += DeletionOutcome(spared=len(batch) - len(going))
        context.progress(done + len(batch), len(deletions), "files")
    if outcome.spared:
        log.info("%s: spared %s files that a concurrent commit references now", name, outcome.spared)
    return outcome


def to_quarantine(table: Table, operation_id: str, deletions: Deletions) -> Deletions:
    """The same deletions as moves into the table's quarantine folder."""
    return replace(deletions, each=lambda: _moves(table, operation_id, deletions))


def _moves(table: Table, operation_id: str, deletions: Iterable[Deletion]) -> Iterator[Deletion]:
    root = table.location().rstrip("/")
    location = normalise(root)
    folder = f"{root}/{QUARANTINE_FOLDER}/{operation_id}"
    for deletion in deletions:
        path = normalise(deletion.path)
        if deletion.path.startswith(root + "/"):
            relative = deletion.path[len(root) + 1 :]
        elif is_under(path.path, location.path) and same_store(path, location):
            relative = relative_to(path.path, location.path)
        else:
            relative = f"_outside/{path.scheme or 'file'}/{path.authority or '-'}{path.path}"
        yield replace(deletion, quarantined_to=f"{folder}/{relative}")


def restore(io: FileIO, entries: Sequence[tuple[str, str]]) -> int:
    """Move quarantined files back; returns how many came back.

    A file that was never moved, or whose place is taken again, is left as it is.

    :param entries: original path and path in quarantine of each file.
    """
    restored = 0
    for path, quarantined in entries:
        if file_size(io, quarantined) is None:
            log.warning("%s is not in quarantine any more, %s is not restored", quarantined, path)
        elif file_size(io, path) is not None:
            log.warning("%s exists, its copy %s stays in quarantine", path, quarantined)
        else:
            move_file(io, quarantined, path)
            restored += 1
    return restored


def _numbered(deletions: Deletions) -> Iterator[tuple[int, list[Deletion]]]:
    done = 0
    for batch in in_batches(deletions, max(_BATCH, min(_LARGEST_BATCH, len(deletions) // _BATCHES))):
        yield done, batch
        done += len(batch)


def _carry_out(io: FileIO, deletions: Sequence[Deletion], mark: Callable[[list[str]], None]) -> DeletionOutcome:
    deleting = [d for d in deletions if d.quarantined_to is None]
    if deleting:
        delete_files(io, [deletion.path for deletion in deleting])
        mark([deletion.path for deletion in deleting])
    moved: list[Deletion] = []
    with ThreadPoolExecutor(_MOVERS, thread_name_prefix="floe-quarantine") as pool:
        for batch in in_batches((d for d in deletions if d.quarantined_to is not None), _MOVES):
            going = [(deletion, pool.submit(_move, io, deletion)) for deletion in batch]
            wait(future for _, future in going)
            done = [deletion for deletion, future in going if future.exception() is None and future.result()]
            mark([deletion.path for deletion in done])
            moved += done
            for _, future in going:
                future.result()
    return DeletionOutcome(
        deleted=len(deleting),
        bytes_deleted=sum(deletion.size_bytes for deletion in deleting),
        quarantined=len(moved),
        bytes_quarantined=sum(deletion.size_bytes for deletion in moved),
    )


def _move(io: FileIO, deletion: Deletion) -> bool:
    """Whether there was a file to move."""
    try:
        move_file(io, deletion.path, deletion.quarantined_to or "")
    except FileNotFoundError:
        log.info("%s was gone already", deletion.path)
        return False
    return True
