"""Which allocator Arrow takes its buffers from while rows are rewritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import pyarrow as pa

CHOSEN_BY_USER = "ARROW_DEFAULT_MEMORY_POOL"
"""Environment variable by which Arrow's users choose an allocator themselves."""

_lock = Lock()
_users = 0
_before: pa.MemoryPool | None = None


@contextmanager
def steady_memory() -> Iterator[None]:
    """Take Arrow's buffers from the C library, from the first that enters to the last that leaves.

    Arrow's own allocator gives pages back to the system within milliseconds: rows that come and go by the batch would
    have them cleared anew over and over. Buffers outlive the switch, each belongs to the pool that made it.
    """
    global _users, _before
    with _lock:
        if not _users and CHOSEN_BY_USER not in os.environ:
            _before = pa.default_memory_pool()
            pa.set_memory_pool(pa.system_memory_pool())
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _before is not None:
                pa.set_memory_pool(_before)
                _before = None
