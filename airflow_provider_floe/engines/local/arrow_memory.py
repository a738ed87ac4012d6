"""Which allocator Arrow takes its buffers from while rows are rewritten."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import pyarrow as pa

CHOSEN_BY_USER = "ARROW_DEFAULT_MEMORY_POOL"
"""Environment variable by which Arrow's users choose an allocator themselves."""

_KEPT_BYTES = 256 * 1024**2
_MAPPED_BYTES = 32 * 1024**2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's ``mallopt``: free memory that is kept, and the size from which on a buffer gets pages of its own."""

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
            _tell_glibc("mallopt", (_TRIM_THRESHOLD, _KEPT_BYTES), (_MMAP_THRESHOLD, _MAPPED_BYTES))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _before is not None:
                pa.set_memory_pool(_before)
                _before = None
                _tell_glibc("malloc_trim", (0,))


def _tell_glibc(function: str, *calls: tuple[int, ...]) -> None:
    """Have the C library keep free memory for the next batch, or give it back; others than glibc are left alone."""
    tell: Any = getattr(ctypes.CDLL(None), function, None)
    for arguments in calls if tell is not None else ():
        tell(*arguments)
