"""A FileIO for Airflow's workers that a test can stop in the middle of a rewrite."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyiceberg.io import OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO


class SlowFileIO(PyArrowFileIO):
    """Holds one data file up, half written, for each time that a test makes the file ``$FLOE_TEST_BRAKES/<table>``.

    It becomes ``<table>.held``, with the ids of the process that waits and of its parent, until the test removes that.
    """

    def new_output(self, location: str) -> OutputFile:
        table, is_data, _ = location.rpartition("/data/")
        brake = Path(os.environ["FLOE_TEST_BRAKES"]) / Path(table).name
        if is_data and brake.exists():
            with super().new_output(location).create() as stream:
                stream.write(b"PAR1 half a file")
            held = brake.with_suffix(".held")
            brake.write_text(f"{os.getpid()} {os.getppid()}")
            brake.rename(held)
            while held.exists():
                time.sleep(0.1)
            Path(location.removeprefix("file://")).unlink(missing_ok=True)
        return super().new_output(location)
