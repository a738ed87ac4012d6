"""Live files of a snapshot, as manifests describe them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class FileContent(IntEnum):
    """Iceberg's ``content`` of a file."""

    DATA = 0
    POSITION_DELETES = 1
    EQUALITY_DELETES = 2


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One live data or delete file.

    :ivar partition: the partition tuple under ``spec_id``, values as stored in the manifest.
    :ivar sequence_number: data sequence number, inherited where the manifest leaves it out.
    :ivar file_sequence_number: sequence number of the commit that added the file, inherited likewise; None where an
        older writer did not carry it on. A rewritten file's is higher than its data sequence number.
    :ivar referenced_data_file: the only data file that a position delete file or deletion vector applies to, if known.
    :ivar first_row_id: format version 3: row id of a data file's first row, inherited where the manifest leaves it
        out; None for files of which no snapshot of version 3 has been told.
    :ivar content_offset: where in its Puffin file a deletion vector begins, in bytes; one Puffin file holds several.
    :ivar content_size_bytes: length of the deletion vector in the Puffin file.
    """

    path: str
    content: FileContent
    file_format: str
    spec_id: int
    partition: tuple[Any, ...]
    record_count: int
    file_size_bytes: int
    sequence_number: int
    snapshot_id: int | None = None
    sort_order_id: int | None = None
    equality_ids: tuple[int, ...] | None = None
    referenced_data_file: str | None = None
    manifest_path: str = ""
    file_sequence_number: int | None = None
    first_row_id: int | None = None
    content_offset: int | None = None
    content_size_bytes: int | None = None

    @property
    def key(self) -> str:
        """What tells this file from all others: its path, and for a deletion vector its place in the Puffin file."""
        return self.path if self.content_offset is None else f"{self.path}#{self.content_offset}"

    @property
    def stored_bytes(self) -> int:
        """Bytes that are this file's own: those of a deletion vector, not of the Puffin file around it."""
        return self.file_size_bytes if self.content_size_bytes is None else self.content_size_bytes

    @property
    def is_deletion_vector(self) -> bool:
        """A v3 deletion vector stands in a Puffin file."""
        return self.content is FileContent.POSITION_DELETES and self.file_format.upper() == "PUFFIN"
