"""A FileIO for Airflow's workers that a test can stop in the middle of a rewrite."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyiceberg.io import OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO


class SlowFileIO(PyArrowFileIO):
    """Holds a new data file of a table up, half written, while ``$FLOE_TEST_BRAKES/<table>`` is there.

    The process that waits tells its own id and its parent's in ``<table>.waiting``.
    """

    def new_output(self, location: str) -> OutputFile:
        folder, _, _ = location.rpartition("/data/")
        brake = Path(os.environ["FLOE_TEST_BRAKES"]) / Path(folder or location).name
        if folder and brake.exists():
            with super().new_output(location).create() as stream:
                stream.write(b"PAR1 half a file")
            brake.with_suffix(".waiting").write_text(f"{os.getpid()} {os.getppid()}")
            while brake.exists():
                time.sleep(0.1)
            self.delete(location)
        return super().new_output(location)
