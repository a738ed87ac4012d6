"""Files in storage: list them, delete them in bulk, move them. Everything goes by the table's own FileIO properties."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

import obstore
from obstore.exceptions import BaseError
from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.io import FileIO
from pyiceberg.io.fsspec import FsspecFileIO
from pyiceberg.io.pyarrow import PyArrowFileIO

from airflow_provider_floe.errors import UnsafeOperation
from airflow_provider_floe.iceberg.merging import merged
from airflow_provider_floe.iceberg.object_stores import s3_store
from airflow_provider_floe.iceberg.paths import split

_T = TypeVar("_T")

BATCH = 5_000
_BULK = 1_000
"""Keys that one S3 request deletes at most."""
_THREADS = 8
_PLAIN_KEY = re.compile(r"[\w=-][\w=.-]*(?:/[\w=-][\w=.-]*)*", re.ASCII)
"""Keys that no store spells in two ways."""
_COPY_BYTES = 8 * 1024**2
_ADLS = ("abfs", "abfss", "wasb", "wasbs")
_FSSPEC_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified")


class ListedFile(NamedTuple):
    """A file as storage lists it.

    :ivar path: the prefix as it was given, and the rest as storage names it.
    :ivar modified: UTC; None when storage does not say, which counts as young.
    """

    path: str
    size_bytes: int
    modified: datetime | None


def list_files(io: FileIO, prefix: str) -> Iterator[list[ListedFile]]:
    """All files below a prefix, in batches; folders and folder markers are no files, symlinked folders not followed.

    A prefix that does not exist has no files; any other failure is raised, so that a listing is whole or an error.

    :raises UnsafeOperation: when the FileIO has no way to list.
    """
    root = prefix.rstrip("/")
    if (local := local_path(io, root)) is not None:
        found = _list_local(local, root)
    elif (store := s3_store(io, root)) is not None:
        found = list_ranges(*store, root, ())
    elif isinstance(io, PyArrowFileIO):
        found = _list_pyarrow(io, root)
    elif isinstance(io, FsspecFileIO):
        found = _list_fsspec(io, root)
    else:
        raise UnsafeOperation(
            f"{type(io).__name__} cannot list {prefix}: use PyArrowFileIO or FsspecFileIO (py-io-impl)"
        )
    yield from in_batches(found)


def list_in_ranges(io: FileIO, prefix: str, split_at: Sequence[str]) -> Iterator[list[ListedFile]]:
    """:func:`list_files`, on an object store in several ranges at the same time.

    A store answers with a thousand names at a time, so a long listing is bound by the number of requests.

    :param split_at: paths between the ranges, which need not exist.
    """
    root = prefix.rstrip("/")
    store = s3_store(io, root) if local_path(io, root) is None else None
    if store is None:
        yield from list_files(io, prefix)
    else:
        keys = [split(path)[2].lstrip("/") for path in split_at]
        yield from in_batches(list_ranges(*store, root, keys))


def delete_files(io: FileIO, paths: Iterable[str]) -> None:
    """Delete files in bulk; one that is gone already is no error."""
    for batch in in_batches(paths):
        for kind, group in groupby(batch, key=lambda path: _kind(io, path)):
            _DELETE[kind](io, list(group))


def move_file(io: FileIO, source: str, target: str) -> None:
    """Move a file; its modification time becomes that of the move.

    :raises FileNotFoundError: when there is no such file.
    """
    local_source, local_target = local_path(io, source), local_path(io, target)
    if local_source is not None and local_target is not None:
        _move_local(local_source, local_target)
        return
    stored_source, stored_target = s3_store(io, source), s3_store(io, target)
    if stored_source and stored_target and stored_source[0] is stored_target[0]:
        stored_source[0].rename(stored_source[1], stored_target[1])
        return
    if isinstance(io, PyArrowFileIO):
        (here, inside), (there, outside) = _pyarrow(io, source), _pyarrow(io, target)
        there.create_dir(posixpath.dirname(outside), recursive=True)
        reading, writing = here.open_input_stream(inside), there.open_output_stream(outside)
    else:
        reading, writing = io.new_input(source).open(), io.new_output(target).create(overwrite=True)
    with reading as reader, writing as writer:
        while chunk := reader.read(_COPY_BYTES):
            writer.write(chunk)
    delete_files(io, [source])


def file_size(io: FileIO, path: str) -> int | None:
    """Size in bytes; None when there is no such file."""
    try:
        if (local := local_path(io, path)) is not None:
            return os.stat(local).st_size
        if (stored := s3_store(io, path)) is not None:
            return obstore.head(*stored)["size"]
        if isinstance(io, PyArrowFileIO):
            filesystem, inside = _pyarrow(io, path)
            info = filesystem.get_file_info(inside)
            return int(info.size) if info.type == FileType.File else None
        return len(io.new_input(path))
    except FileNotFoundError:
        return None


def local_path(io: FileIO, path: str) -> str | None:
    """The path in the local file system, None when it is elsewhere."""
    if path.startswith("file:///"):
        return path[7:]
    scheme, authority, rest = split(path)
    scheme = scheme or str(io.properties.get("DEFAULT_SCHEME", "file"))
    return rest if scheme == "file" and authority in ("", "localhost") else None


def in_batches(items: Iterable[_T], size: int = BATCH) -> Iterator[list[_T]]:
    """Lists of at most ``size`` items, in order."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _list_local(local: str, root: str) -> Iterator[ListedFile]:
    pending = [(local, root)]
    while pending:
        folder, named = pending.pop()
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            continue
        with entries:
            for entry in entries:
                path = f"{named}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, path))
                elif not entry.is_symlink() or entry.is_file():
                    try:
                        stat = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield ListedFile(path, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def list_ranges(store: Any, key: str, root: str, split_at: Sequence[str]) -> Iterator[ListedFile]:
    """All objects below a key, the ranges between some keys at the same time."""
    below = f"{key}/" if key else ""
    points = sorted({point for point in split_at if point.startswith(below) and _PLAIN_KEY.fullmatch(point)})
    ranges = zip([None, *points], [*points, None], strict=True)
    batches = merged([_list_range(store, below, root, after, last) for after, last in ranges])
    return (file for batch in batches for file in batch)


def _list_range(store: Any, below: str, root: str, after: str | None, last: str | None) -> Iterator[list[ListedFile]]:
    """Objects behind one key and up to another, in the order of their keys."""
    try:
        for chunk in obstore.list(store, below or None, offset=after, chunk_size=BATCH):
            batch = []
            for found in chunk:
                path = found["path"]
                if last is not None and path > last:
                    continue
                name = path[len(below) :]
                if not _is_marker(name) and (found["size"] or _exists(store, path)):
                    batch.append(ListedFile(f"{root}/{name}", found["size"], found["last_modified"]))
            yield batch
            if last is not None and chunk and chunk[-1]["path"] > last:
                return
    except BaseError as error:
        raise UnsafeOperation(f"{root} cannot be listed: {str(error).splitlines()[0]}") from error


def _exists(store: Any, key: str) -> bool:
    """False for a folder marker, whose trailing slash the listing leaves out: there is no object of that name."""
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return False
    return True


def _list_pyarrow(io: PyArrowFileIO, root: str) -> Iterator[ListedFile]:
    filesystem, path = _pyarrow(io, root)
    pending = [path]
    while pending:
        for info in filesystem.get_file_info(FileSelector(pending.pop(), allow_not_found=True)):
            if info.type == FileType.Directory:
                pending.append(info.path)
            elif info.type == FileType.File and not _is_marker(info.path):
                modified = info.mtime.astimezone(UTC) if info.mtime is not None else None
                yield ListedFile(root + info.path[len(path.rstrip("/")) :], info.size, modified)


def _pyarrow(io: PyArrowFileIO, path: str) -> tuple[FileSystem, str]:
    """The file system and the path in it.

    The FileIO's own methods are not used: they take ``#`` and ``?`` in a name for the end of the path, and would
    delete another file.
    """
    scheme, authority, rest = split(path)
    scheme = scheme or str(io.properties.get("DEFAULT_SCHEME", "file"))
    authority = authority or str(io.properties.get("DEFAULT_NETLOC", ""))
    inside = rest if scheme in ("file", "hdfs", "viewfs") else authority + rest
    return io.fs_by_scheme(scheme, authority), inside


def _list_fsspec(io: FsspecFileIO, root: str) -> Iterator[ListedFile]:
    filesystem, base = _fsspec(io, root)
    for path, info in filesystem.find(base, detail=True).items():
        if info["type"] == "file" and not _is_marker(path):
            yield ListedFile(root + path[len(base) :], info["size"] or 0, _fsspec_time(info))


def _fsspec(io: FsspecFileIO, path: str) -> tuple[Any, str]:
    scheme, authority, _ = split(path)
    host = authority.rpartition("@")[2] if scheme in _ADLS else None
    filesystem = io.get_fs(scheme or "file", host)
    return filesystem, str(filesystem._strip_protocol(path)).rstrip("/")


def _fsspec_time(info: dict[str, Any]) -> datetime | None:
    for name in _FSSPEC_TIMES:
        match info.get(name):
            case datetime() as found:
                return found if found.tzinfo else found.replace(tzinfo=UTC)
            case int() | float() as seconds:
                return datetime.fromtimestamp(seconds, UTC)
            case str() as text:
                return datetime.fromisoformat(text)
    return None


def _is_marker(name: str) -> bool:
    return not name or name.endswith(("/", "_$folder$"))


def _kind(io: FileIO, path: str) -> str:
    if local_path(io, path) is not None:
        return "local"
    return "s3" if s3_store(io, path) is not None else "file io"


def _delete_local(io: FileIO, paths: list[str]) -> None:
    for path in paths:
        try:
            os.unlink(local_path(io, path) or path)
        except FileNotFoundError:
            continue


def _delete_stored(io: FileIO, paths: list[str]) -> None:
    by_store: dict[int, tuple[Any, list[str]]] = {}
    for path in paths:
        store, key = s3_store(io, path) or (None, "")
        by_store.setdefault(id(store), (store, []))[1].append(key)
    for store, keys in by_store.values():
        for chunk in in_batches(keys, _BULK):
            obstore.delete(store, chunk)


def _delete_each(io: FileIO, paths: list[str]) -> None:
    def delete(path: str) -> None:
        try:
            if isinstance(io, PyArrowFileIO):
                filesystem, inside = _pyarrow(io, path)
                filesystem.delete_file(inside)
            elif isinstance(io, FsspecFileIO):
                filesystem, inside = _fsspec(io, path)
                filesystem.rm_file(inside)  # the FileIO's own method takes the name for a glob
            else:
                io.delete(path)
        except FileNotFoundError:
            return

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="floe-delete") as pool:
        list(pool.map(delete, paths))


_DELETE = {"local": _delete_local, "s3": _delete_stored, "file io": _delete_each}


def _move_local(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)
    os.utime(target)
