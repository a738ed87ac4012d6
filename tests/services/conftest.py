"""Parts the tests on real servers between processes so that few servers run at a time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_ENGINE = re.compile(r"/conformance/.*\[(local|[a-z]+-\d[\d.]*)[-\]]")


class _OneEngineOrFile(LoadScopeScheduling):
    """One process runs the tests of a file; of those that run on each engine, all of one engine.

    The full matrix is one file, so its cases are parted.
    """

    def _split_scope(self, nodeid: str) -> str:
        if self.config.getoption("full_matrix"):
            return nodeid
        engine = _ENGINE.search(nodeid)
        return engine.group(1) if engine else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _OneEngineOrFile(config, log)
