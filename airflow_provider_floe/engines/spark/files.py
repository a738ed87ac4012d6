"""The files by which a job on Spark and those who wait for it speak, written with the table's own FileIO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyiceberg.table import Table

from airflow_provider_floe.engines.spark import job
from airflow_provider_floe.iceberg.listing import delete_files, file_size

FOLDER = "_floe"
"""Below the table's location; engines take what begins with ``_`` for no part of the table."""


class JobFiles:
    """The files of one job.

    :param name: names the job; its files are ``_floe/<name>.*`` below the table's location.
    :ivar request: path of what the job is asked to do, where it cannot be handed a file.
    :ivar leash: path of what tells the job to go on.
    :ivar result: path of what the job says it did.
    """

    def __init__(self, table: Table, name: str) -> None:
        self._io = table.io
        base = f"{table.location().rstrip('/')}/{FOLDER}/{name}"
        self.request, self.leash, self.result = f"{base}.request", f"{base}.leash", f"{base}.json"

    def write_request(self, document: Mapping[str, Any]) -> None:
        """Before the job is sent."""
        self._write(self.request, json.dumps(document))

    def renew_leash(self, text: str) -> None:
        """Say that someone still waits; each time with another text."""
        self._write(self.leash, text)

    def tell_to_stop(self) -> None:
        """The job ends itself within seconds, wherever it runs."""
        self._write(self.leash, job.STOP)

    def withdraw(self) -> None:
        """A job that reads its request from here does nothing without it, and ends itself without its leash."""
        delete_files(self._io, [self.request, self.leash])

    def sent(self) -> bool:
        """Whether a request is there that nobody has withdrawn."""
        return file_size(self._io, self.request) is not None

    def read_result(self) -> Mapping[str, Any] | None:
        """What the job wrote; None when it wrote nothing."""
        if file_size(self._io, self.result) is None:
            return None
        with self._io.new_input(self.result).open() as stream:
            found: Mapping[str, Any] = json.loads(stream.read())
        return found

    def remove(self) -> None:
        """Once they are of no use any more."""
        delete_files(self._io, [self.request, self.leash, self.result])

    def _write(self, path: str, text: str) -> None:
        with self._io.new_output(path).create(overwrite=True) as stream:
            stream.write(text.encode())
