"""Runs inside the oracle's environment: reads metadata locations from stdin, answers rows and hash."""

from __future__ import annotations

import json
import sys

import duckdb
import duckdb_extensions

QUERY = "SELECT count(*), coalesce(sum(hash(row_)::HUGEINT), 0) FROM iceberg_scan(?) AS row_"


def main() -> None:
    connection = duckdb.connect(config={"extension_directory": sys.argv[1]})
    for extension in ("avro", "iceberg"):
        duckdb_extensions.import_extension(extension, con=connection)
        connection.load_extension(extension)
    for line in sys.stdin:
        try:
            rows, digest = connection.execute(QUERY, [json.loads(line)]).fetchone()
            answer = {"rows": rows, "hash": digest}
        except duckdb.Error as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


main()
