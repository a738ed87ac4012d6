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

    @property
    def is_deletion_vector(self) -> bool:
        """A v3 deletion vector stands in a Puffin file."""
        return self.content is FileContent.POSITION_DELETES and self.file_format.upper() == "PUFFIN"
