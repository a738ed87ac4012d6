"""Cuts a sequence into parts of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def split_by_size(items: Iterable[T], size_of: Callable[[T], int], most_bytes: int) -> Iterator[list[T]]:
    """Consecutive items of at most so many bytes together; a larger item stands alone."""
    chunk: list[T] = []
    size = 0
    for item in items:
        if chunk and size + size_of(item) > most_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += size_of(item)
    if chunk:
        yield chunk
