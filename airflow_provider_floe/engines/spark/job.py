"""What runs on Spark: the job that spark-submit is given, and the calls that Spark Connect is sent.

It runs on a cluster that does not have this package: it imports the standard library, and pyspark where it needs it.

    spark-submit job.py request.json
    spark-submit job.py '{"table": ["catalog", "namespace", "table"], "request": "s3://..."}'

The request, and the result that the job writes through the table's own FileIO, are JSON; see ``request.py`` beside it.
Where a request cannot be handed over as a file, it is read by the table's FileIO too.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from typing import Any

OPERATION_ID = "floe.operation-id"
STOP = "stop"
NO_TABLE, LEASH_LOST = 71, 75
"""Exit codes: the table cannot be loaded, so there is nowhere to write a result to; nobody waits for us any more."""

OUTDATED = "OutdatedJob"
"""Type of the error of a job whose file is of another version of this package."""

_LEASH_START_SECONDS = 0.3
_LEASH_POLL_SECONDS = 3.0
_JUDGE_SECONDS = 0.5
_HALT_SECONDS = 5.0
_PROBE_TABLE = "floe_probe_no_such_table"


def identifier(parts: list[str]) -> str:
    """Names in backquotes, joined by dots."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def literal(value: Any) -> str:
    """A value as Spark SQL spells it. A dict is a map, but ``{"timestamp": "2026-01-01T00:00:00Z"}`` a timestamp."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "array(" + ", ".join(f"{one}L" if isinstance(one, int) else literal(one) for one in value) + ")"
    if list(value) == ["timestamp"]:
        return f"TIMESTAMP '{value['timestamp']}'"
    return "map(" + ", ".join(f"{literal(key)}, {literal(one)}" for key, one in value.items()) + ")"


def call_statement(catalog: str, procedure: str, arguments: dict[str, Any]) -> str:
    """The ``CALL`` of one of Iceberg's procedures."""
    named = ", ".join(f"{name} => {literal(value)}" for name, value in arguments.items())
    return f"CALL {identifier([catalog])}.system.{procedure}({named})"


def run(spark: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request; over Spark Connect this is called in the worker's process."""
    table = identifier(request["table"])
    spark.sql(f"REFRESH TABLE {table}")  # a session's catalog may hold the table as it was
    for view, files in request.get("views", {}).items():
        _file_view(spark, view, files)
    rows = []
    for step in request["steps"]:
        if "java_action" in step:
            rows.append(_rewrite_manifests(spark, request, step["java_action"]))
        else:
            statement = call_statement(request["table"][0], step["procedure"], step["arguments"])
            rows.append([row.asDict(recursive=True) for row in spark.sql(statement).collect()])
    result: dict[str, Any] = {"rows": rows}
    if request.get("count_rows"):
        result["counts"] = _counts(spark, table, set(request["known_snapshots"]), request["count_rows"])
    return result


def probe(spark: Any, catalogs: list[str], wanted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Which catalogs, procedures and arguments there are.

    Procedures are called with a table that does not exist: only an argument that is not there fails before the table
    is looked for.

    :param wanted: by procedure, a value for each argument to ask about.
    :returns: ``catalogs``, each with what is wrong with it, ``arguments`` by procedure, and ``missing`` with the
        reasons.
    """
    tried = {catalog: _wrong_with(spark, catalog) for catalog in catalogs}
    usable = [catalog for catalog in catalogs if not tried[catalog]]
    found: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for procedure, arguments in wanted.items() if usable else ():
        table = {"table": identifier([usable[0], _PROBE_TABLE, _PROBE_TABLE])}
        reason = _refused(spark, call_statement(usable[0], procedure, table))
        if reason:
            missing[procedure] = reason
            continue
        found[procedure] = []
        for name, value in arguments.items():
            reason = _refused(spark, call_statement(usable[0], procedure, {**table, name: value}))
            if reason:
                missing[f"{procedure}.{name}"] = reason
            else:
                found[procedure].append(name)
    return {"version": spark.version, "catalogs": tried, "arguments": found, "missing": missing}


def _wrong_with(spark: Any, catalog: str) -> str:
    try:
        spark.sql(f"SHOW NAMESPACES IN {identifier([catalog])}").limit(1).collect()
    except Exception as error:
        return _first_line(error)
    return ""


def probe_java(spark: Any) -> dict[str, list[str]]:
    """The options of ``rewrite_data_files`` and the methods of ``rewrite_manifests``, from Iceberg's interfaces."""
    loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()
    fields = loader.loadClass("org.apache.iceberg.actions.RewriteDataFiles").getFields()
    values = [field.get(None) for field in fields if field.getType().getName() == "java.lang.String"]
    methods = loader.loadClass("org.apache.iceberg.actions.RewriteManifests").getMethods()
    return {
        "options": sorted(value for value in values if isinstance(value, str)),
        "actions": sorted({method.getName() for method in methods}),
    }


def _refused(spark: Any, statement: str) -> str:
    """Why a call is refused before its table is looked for; empty when it is not."""
    try:
        spark.sql(statement).collect()
    except Exception as error:
        reason = _first_line(error)
        return "" if _PROBE_TABLE in reason and "argument" not in reason.lower() else reason
    return ""


def _first_line(error: Exception) -> str:
    text = _error(error)["message"].strip()
    return text.splitlines()[0] if text else type(error).__name__


def _file_view(spark: Any, view: str, files: list[list[Any]]) -> None:
    """A temporary view of files: path, and modification time in milliseconds since 1970.

    One literal holds them all: a data frame made from rows depends on versions of client and server.
    """
    document = json.dumps([{"path": path, "modified": modified} for path, modified in files])
    spark.sql(
        f"CREATE OR REPLACE TEMPORARY VIEW {view} AS "
        "SELECT path AS file_path, timestamp_millis(modified) AS last_modified "
        f"FROM (SELECT inline(from_json({literal(document)}, 'array<struct<path: string, modified: bigint>>')))"
    )


def _counts(spark: Any, table: str, known: set[int], what: str) -> dict[str, list[Any]]:
    """For each snapshot of kind replace made meanwhile: what its parent holds and what it holds itself.

    :param what: the aggregates to compare, for example ``count(*)``.
    """
    made = spark.sql(f"SELECT snapshot_id, parent_id FROM {table}.snapshots WHERE operation = 'replace'").collect()
    counts = {}
    for snapshot, parent in made:
        if snapshot not in known and parent is not None:
            counts[str(snapshot)] = [
                [str(value) for value in spark.sql(f"SELECT {what} FROM {table} VERSION AS OF {one}").collect()[0]]
                for one in (parent, snapshot)
            ]
    return counts


def _java_table(spark: Any, parts: list[str]) -> Any:
    return spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, identifier(parts))


def _rewrite_manifests(spark: Any, request: dict[str, Any], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The action behind the procedure, for what the procedure has no arguments for."""
    jvm = spark._jvm
    table = _java_table(spark, request["table"])
    action = jvm.org.apache.iceberg.spark.actions.SparkActions.get(spark._jsparkSession).rewriteManifests(table)
    action = action.specId(wanted["spec_id"])
    if wanted.get("staging_location"):
        action = action.stagingLocation(wanted["staging_location"])
    if wanted.get("sort_by"):
        fields = jvm.java.util.ArrayList()
        for name in wanted["sort_by"]:
            fields.add(name)
        action = action.sortBy(fields)
    if wanted.get("manifests") is not None:
        paths = set(wanted["manifests"])
        chosen = [one for one in table.currentSnapshot().allManifests(table.io()) if one.path() in paths]
        if len(chosen) != len(paths):
            raise RuntimeError("CommitFailedException: manifests to rewrite were replaced by another commit meanwhile")
        action = action.rewriteIf(_any_of(jvm, chosen))
    done = action.execute()
    counts = {}
    for name, manifests in (
        ("rewritten_manifests_count", done.rewrittenManifests()),
        ("added_manifests_count", done.addedManifests()),
    ):
        counts[name] = sum(1 for _ in manifests)
    return [counts]


def _any_of(jvm: Any, manifests: list[Any]) -> Any:
    """A Java predicate that holds for these manifests; halved again and again, so that it is not nested deeply."""
    if len(manifests) == 1:
        return jvm.java.util.function.Predicate.isEqual(manifests[0])
    half = len(manifests) // 2
    return getattr(_any_of(jvm, manifests[:half]), "or")(_any_of(jvm, manifests[half:]))


class _Leash:
    """Ends the job when those who wait for it are gone, or say so: a file that they write anew all the time.

    It works wherever the driver runs, and whether or not anyone can reach it, or the storage answers.

    :param halt: ends the JVM at once, without anything that it would do before its end: a commit could still go
        through meanwhile.
    :param seconds: how long it need not be written anew; None for ever, while it is there.
    :param deadline: seconds since 1970 at which the job has to end; None for no such time.
    """

    def __init__(
        self, io: Any, path: str, seconds: float | None, deadline: float | None = None, *, halt: Any = lambda: None
    ) -> None:
        self._io = io
        self._path = path
        self._halt = halt
        self._seconds = seconds
        self._deadline = deadline
        self._last: str | None = None
        self._changed = time.monotonic()

    def expect_renewal(self) -> None:
        """Return once the file is written anew: a job that had to queue may begin when its worker is long gone."""
        self.check()
        first = self._last
        while self._seconds is not None and self._last in (None, first):
            time.sleep(_LEASH_START_SECONDS)
            self.check()

    def watch(self) -> None:
        """Check for ever: the time in a thread of its own, since reading may hang."""
        threading.Thread(target=self._read_for_ever, daemon=True).start()
        while True:
            self._judge()
            time.sleep(_JUDGE_SECONDS)

    def check(self) -> None:
        """End this process where nobody waits for it any more."""
        self._renew()
        self._judge()

    def _read_for_ever(self) -> None:
        while True:
            self._renew()
            time.sleep(_LEASH_POLL_SECONDS)

    def _renew(self) -> None:
        text = self._read()
        if text not in (None, self._last):
            self._last, self._changed = text, time.monotonic()

    def _judge(self) -> None:
        if self._last == STOP:
            self._end("told to stop")
        if self._seconds is not None and time.monotonic() - self._changed > self._seconds:
            self._end("nobody waits any more")
        if self._deadline is not None and time.time() > self._deadline:
            self._end("past the deadline")

    def _end(self, why: str) -> None:
        print(f"floe: {why}", file=sys.stderr)
        sys.stderr.flush()
        halting = threading.Thread(target=self._halt, daemon=True)
        halting.start()
        halting.join(_HALT_SECONDS)
        os._exit(LEASH_LOST)

    def _read(self) -> str | None:
        try:
            return _read(self._io, self._path)
        except Exception as error:
            withdrawn = self._seconds is None and _error(error)["type"].endswith("NotFoundException")
            return STOP if withdrawn else None


def version() -> str:
    """Digest of this file: whoever sends a request and whoever carries it out must have the same."""
    with open(__file__, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()[:16]


def _read_request(path: str) -> dict[str, Any]:
    """The file as it was named, or where Spark put it on the machine of the driver."""
    if not os.path.exists(path):
        from pyspark import SparkFiles

        name = os.path.basename(path)
        path = name if os.path.exists(name) else SparkFiles.get(name)
    with open(path) as stream:
        return json.load(stream)  # type: ignore[no-any-return]


def _read(io: Any, path: str) -> str:
    stream = io.newInputFile(path).newStream()
    try:
        return bytes(stream.readAllBytes()).decode()
    finally:
        stream.close()


def _write(io: Any, path: str, document: dict[str, Any]) -> None:
    stream = io.newOutputFile(path).createOrOverwrite()
    stream.write(bytearray(json.dumps(document, default=str).encode()))
    stream.close()


def _error(error: Exception) -> dict[str, str]:
    java = getattr(error, "java_exception", None)
    if java is not None:
        return {"type": java.getClass().getName(), "message": str(java.getMessage() or java.toString())}
    return {"type": type(error).__name__, "message": str(error)}


def _probe(spark: Any, request: dict[str, Any]) -> int:
    """Tell what there is: in a file of this machine, or by the first of some tables that can be loaded.

    Each of those tables comes with the path of a file below its location.
    """
    found = {**probe(spark, request["catalogs"], request["probe"]), **probe_java(spark)}
    if "result" in request:
        with open(request["result"], "w") as stream:
            json.dump(found, stream)
        return 0
    for place in request["places"]:
        try:
            io = _java_table(spark, place["table"]).io()
        except Exception as error:
            print(f"floe: {identifier(place['table'])} cannot be loaded: {_error(error)}", file=sys.stderr)
            continue
        outdated = {"error": {"type": OUTDATED, "message": f"it has version {version()}"}}
        _write(io, place["result"], found if request["version"] == version() else outdated)
        return 0
    return NO_TABLE


def main(arguments: list[str]) -> int:
    """Run one request under spark-submit; the exit code says whether it was carried out."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.getOrCreate()
    pointer = json.loads(arguments[0]) if arguments[0].startswith("{") else None
    request = pointer or _read_request(arguments[0])
    if "probe" in request:
        return _probe(spark, request)
    try:
        io = _java_table(spark, request["table"]).io()
    except Exception as error:
        print(f"floe: {identifier(request['table'])} cannot be loaded: {_error(error)}", file=sys.stderr)
        return NO_TABLE
    if pointer is not None:
        if pointer["version"] != version():
            _write(io, pointer["result"], {"error": {"type": OUTDATED, "message": f"it has version {version()}"}})
            return 1
        request = json.loads(_read(io, pointer["request"]))
    runtime = spark._jvm.java.lang.Runtime.getRuntime()
    leash = _Leash(
        io, request["leash"], request["leash_seconds"], request["deadline"], halt=lambda: runtime.halt(LEASH_LOST)
    )
    leash.expect_renewal()
    threading.Thread(target=leash.watch, daemon=True).start()
    for name, value in request["snapshot_properties"].items():
        spark._jvm.org.apache.iceberg.EnvironmentContext.put(name, value)
    try:
        result = run(spark, request)
    except Exception as error:
        _write(io, request["result"], {"error": _error(error)})
        raise
    _write(io, request["result"], {**result, "application": spark.sparkContext.applicationId})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
