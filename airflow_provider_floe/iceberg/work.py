"""What an operation would find to do on a table, as the modules that plan it say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """The findings for one operation with given settings; becomes a report's ``OperationWork``.

    :ivar found: True: there is work; False: running it would change nothing; None: not known without running it.
    :ivar summary: one sentence with the numbers, for people.
    :ivar refusal: why the operation must not run at all (``gc.enabled=false`` ...); None when it may.
    """

    found: bool | None
    summary: str
    files_in: int = 0
    files_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    delete_files: int = 0
    snapshots: int = 0
    manifests_in: int = 0
    manifests_out: int = 0
    refusal: str | None = None
