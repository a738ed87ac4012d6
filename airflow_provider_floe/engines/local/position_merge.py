"""Merges position deletes: what many small files say of live data files, in few files or deletion vectors.

Before format version 3 the result is Parquet, sorted as the format asks for; from then on it is one deletion vector a
data file. DuckDB sorts and spills, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import Table

from airflow_provider_floe import __version__
from airflow_provider_floe.engines.local.duck import connect
from airflow_provider_floe.engines.local.pyiceberg_manifests import position_delete_file
from airflow_provider_floe.engines.local.reader import BATCH_ROWS
from airflow_provider_floe.errors import VerificationFailed
from airflow_provider_floe.iceberg.deletes import DeleteIndex, written_in
from airflow_provider_floe.iceberg.deletion_vectors import (
    POSITION_COLUMN,
    Place,
    PuffinFile,
    Vector,
    decode_vector,
    read_vector,
)
from airflow_provider_floe.iceberg.files import FileContent, LiveFile
from airflow_provider_floe.iceberg.manifests import PATH_COLUMN

MARK = "floe-deletes"
_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={b"PARQUET:field_id": str(PATH_COLUMN).encode()}),
        pa.field("pos", pa.int64(), nullable=False, metadata={b"PARQUET:field_id": str(POSITION_COLUMN).encode()}),
    ]
)
_ROWS_PER_GROUP = 1_048_576
_DIGEST = "SELECT count(*), bit_xor(hash(file_path, pos)), sum(pos) FROM "


@dataclass(frozen=True)
class Merge:
    """Delete files that become fewer, and what is needed to tell what they say.

    :ivar files: what goes.
    :ivar entries: the manifests' own description of each file, by key.
    :ivar data: the live data files by path.
    :ivar index: all live delete files.
    :ivar by_data_file: Parquet files are to be one for each data file.
    :ivar announce: called with each file's path before it is written.
    """

    table: Table
    files: Sequence[LiveFile]
    entries: Mapping[str, DataFile]
    data: Mapping[str, LiveFile]
    index: DeleteIndex
    target_bytes: int
    by_data_file: bool
    memory_bytes: int
    announce: Callable[[str], None]
    checkpoint: Callable[[], None]

    @property
    def sequence_number(self) -> int:
        """Data sequence number of what is written: all that the files apply to is not younger than the newest one."""
        return max(file.sequence_number for file in self.files)

    def run(self) -> list[DataFile]:
        """Write the merged deletes, and read them back.

        :raises VerificationFailed: when they do not say what the files say; nothing may be committed then.
        """
        if self.files[0].is_deletion_vector:
            return self._puffin_files(self._vectors())
        with connect(self.memory_bytes) as duck:
            self._load(duck)
            if self.table.metadata.format_version >= 3:
                self._load_what_else_applies(duck)
                return self._puffin_files(_by_path(self._ordered(duck)))
            return self._parquet_files(duck)

    # --- reading

    def _load(self, duck: duckdb.DuckDBPyConnection) -> None:
        duck.execute("CREATE TABLE live (file_path VARCHAR, written_in BIGINT)")
        place = self.files[0].spec_id, self.files[0].partition
        reached = [
            file
            for file in self.data.values()
            if (file.spec_id, file.partition) == place and self.index.vector_of(file) is None
        ]
        paths = pa.array([file.path for file in reached], pa.string())
        written = pa.array([written_in(file) for file in reached], pa.int64())
        duck.register("incoming", pa.table([paths, written], names=["file_path", "written_in"]))
        duck.execute("INSERT INTO live SELECT file_path, written_in FROM incoming")
        duck.unregister("incoming")
        duck.execute("CREATE TABLE said (file_path VARCHAR, pos BIGINT)")
        for file in self.files:
            self._insert(duck, file, "live")

    def _insert(self, duck: duckdb.DuckDBPyConnection, file: LiveFile, wanted: str) -> None:
        with self.table.io.new_input(file.path).open() as stream:
            for batch in pq.ParquetFile(stream).iter_batches(BATCH_ROWS, columns=["file_path", "pos"]):
                self.checkpoint()
                duck.register("incoming", pa.Table.from_batches([batch]))
                duck.execute(
                    f"INSERT INTO said SELECT i.file_path, i.pos FROM incoming i JOIN {wanted} w USING (file_path) "
                    "WHERE w.written_in <= ?",
                    [file.sequence_number],
                )
                duck.unregister("incoming")

    def _load_what_else_applies(self, duck: duckdb.DuckDBPyConnection) -> None:
        """A deletion vector stands for all position deletes of its data file, those that stay as they are included."""
        duck.execute(
            "CREATE TABLE touched AS SELECT * FROM live WHERE file_path IN (SELECT DISTINCT file_path FROM said)"
        )
        touched = [self.data[path] for (path,) in duck.execute("SELECT file_path FROM touched").fetchall()]
        known = {file.key for file in self.files}
        others = {
            delete.key: delete
            for file in touched
            for delete in self.index.of(file)
            if delete.content is FileContent.POSITION_DELETES and delete.key not in known
        }
        for delete in others.values():
            self._insert(duck, delete, "touched")

    def _ordered(self, duck: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
        found = duck.sql("SELECT DISTINCT file_path, pos FROM said ORDER BY file_path, pos")
        for batch in found.to_arrow_reader(BATCH_ROWS):
            yield pa.RecordBatch.from_arrays([batch.column(0).cast(pa.string()), batch.column(1)], schema=_SCHEMA)

    def _vectors(self) -> Iterator[Vector]:
        for file in self.files:
            self.checkpoint()
            yield Vector(str(file.referenced_data_file), read_vector(self.table.io, file))

    # --- writing

    def _parquet_files(self, duck: duckdb.DuckDBPyConnection) -> list[DataFile]:
        written: list[DataFile] = []
        stream: Any = None
        writer: Any = None
        path, first, last, rows = "", "", "", 0

        def close() -> None:
            nonlocal stream, writer
            writer.close()
            size = stream.tell()
            stream.close()
            written.append(self._parquet_file(path, size, rows, first, last))
            stream = writer = None

        try:
            ordered = self._ordered(duck)
            for batch in map(_batch, _by_path(ordered)) if self.by_data_file else ordered:
                self.checkpoint()
                if writer is None:
                    path, rows = self._new_path("parquet"), 0
                    first = batch.column(0)[0].as_py()
                    stream = self.table.io.new_output(path).create()
                    writer = pq.ParquetWriter(stream, _SCHEMA, compression="zstd")
                writer.write_batch(batch, row_group_size=_ROWS_PER_GROUP)
                last, rows = batch.column(0)[-1].as_py(), rows + batch.num_rows
                if self.by_data_file or stream.tell() >= self.target_bytes:
                    close()
            if writer is not None:
                close()
        finally:
            if stream is not None:
                stream.close()
        self._verify_parquet(duck, written)
        return written

    def _parquet_file(self, path: str, size: int, rows: int, first: str, last: str) -> DataFile:
        alike = self.entries[self.files[0].key]
        return position_delete_file(  # type: ignore[no-any-return]
            path,
            FileFormat.PARQUET,
            alike.partition,
            self.files[0].spec_id,
            size,
            rows,
            lower_bounds={PATH_COLUMN: first.encode()},
            upper_bounds={PATH_COLUMN: last.encode()},
            split_offsets=[4],
            referenced_data_file=first if first == last else None,
        )

    def _verify_parquet(self, duck: duckdb.DuckDBPyConnection, written: Sequence[DataFile]) -> None:
        duck.execute("CREATE TABLE back (file_path VARCHAR, pos BIGINT)")
        for file in written:
            with self.table.io.new_input(file.file_path).open() as stream:
                for batch in pq.ParquetFile(stream).iter_batches(BATCH_ROWS):
                    duck.register("incoming", pa.Table.from_batches([batch]))
                    duck.execute("INSERT INTO back SELECT file_path, pos FROM incoming")
                    duck.unregister("incoming")
        found = duck.execute(f"{_DIGEST} back").fetchall()
        said = duck.execute(f"{_DIGEST} (SELECT DISTINCT file_path, pos FROM said)").fetchall()
        if found != said:
            raise VerificationFailed(
                f"{found[0][0]:,} deletes were written, but {len(self.files):,} files hold {said[0][0]:,}, or others: "
                "nothing was committed"
            )

    def _puffin_files(self, vectors: Iterable[Vector]) -> list[DataFile]:
        written: list[DataFile] = []
        puffin, held = PuffinFile(), list[tuple[Vector, Place]]()
        for vector in vectors:
            held.append((vector, puffin.add(vector)))
            if puffin.size_bytes >= self.target_bytes:
                written += self._puffin_file(puffin, held)
                puffin, held = PuffinFile(), []
        return written + (self._puffin_file(puffin, held) if held else [])

    def _puffin_file(self, puffin: PuffinFile, held: Sequence[tuple[Vector, Place]]) -> list[DataFile]:
        self.checkpoint()
        path = self._new_path("puffin")
        with self.table.io.new_output(path).create() as stream:
            stream.write(puffin.finished(f"airflow-provider-floe {__version__}"))
        with self.table.io.new_input(path).open() as stream:
            stored = stream.read()
        owners = {file.referenced_data_file: file for file in self.files}
        files = []
        for vector, place in held:
            back = decode_vector(stored[place.offset : place.offset + place.length], path)
            if not np.array_equal(back, np.asarray(vector.positions)):
                raise VerificationFailed(
                    f"the deletion vector of {vector.data_file} came back from {path} otherwise than it was written: "
                    "nothing was committed"
                )
            alike = owners.get(vector.data_file, self.files[0])
            files.append(
                position_delete_file(
                    path,
                    FileFormat.PUFFIN,
                    self.entries[alike.key].partition,
                    alike.spec_id,
                    len(stored),
                    len(vector.positions),
                    referenced_data_file=vector.data_file,
                    content_offset=place.offset,
                    content_size_in_bytes=place.length,
                )
            )
        return files

    def _new_path(self, suffix: str) -> str:
        path = self.table.location_provider().new_data_location(f"{MARK}-{uuid4()}.{suffix}")
        self.announce(path)
        return path


def _by_path(batches: Iterable[pa.RecordBatch]) -> Iterator[Vector]:
    """Ordered deletes, those of one data file together."""
    path = ""
    chunks: list[Any] = []
    for batch in batches:
        names, positions = batch.column(0), batch.column(1).to_numpy()
        bounds = [0, *(index + 1 for index in _changes(names)), batch.num_rows]
        for start, end in pairwise(bounds):
            name = names[start].as_py()
            if chunks and name != path:
                yield Vector(path, np.concatenate(chunks))
                chunks = []
            path = name
            chunks.append(positions[start:end])
    if chunks:
        yield Vector(path, np.concatenate(chunks))


def _batch(vector: Vector) -> pa.RecordBatch:
    names = pa.repeat(pa.scalar(vector.data_file), len(vector.positions))
    return pa.RecordBatch.from_arrays([names, pa.array(vector.positions)], schema=_SCHEMA)


def _changes(names: pa.Array) -> list[int]:
    """Indexes after which the name is another."""
    if len(names) < 2:
        return []
    other = pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    return [int(index) for index in np.flatnonzero(other)]
