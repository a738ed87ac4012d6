"""Runs inside the oracle's environment: reads questions from stdin, answers rows and hash."""

from __future__ import annotations

import json
import sys

import duckdb
import duckdb_extensions

QUERY = "SELECT count(*), coalesce(sum(hash(row_)::HUGEINT), 0) FROM {source} AS row_"


def main() -> None:
    # threads that wait for one another are most of the time that small tables take
    connection = duckdb.connect(config={"extension_directory": sys.argv[1], "threads": 1})
    for extension in ("avro", "iceberg", "httpfs"):
        duckdb_extensions.import_extension(extension, con=connection)
        connection.load_extension(extension)
    for line in sys.stdin:
        asked = json.loads(line)
        source = "read_parquet(?)" if asked["path"].endswith(".parquet") else "iceberg_scan(?)"
        if asked["snapshot"] is not None:
            source = f"iceberg_scan(?, snapshot_from_id => {int(asked['snapshot'])})"
        try:
            if asked["s3"]:
                connection.execute(_secret(**asked["s3"]))
            rows, digest = connection.execute(QUERY.format(source=source), [asked["path"]]).fetchone()
            answer = {"rows": rows, "hash": digest}
        except duckdb.Error as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def _secret(*, endpoint: str, key: str, secret: str, region: str, **_: str) -> str:
    scheme, _, place = endpoint.partition("://")
    return (
        f"CREATE OR REPLACE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', REGION '{region}', "
        f"ENDPOINT '{place}', URL_STYLE 'path', USE_SSL {str(scheme == 'https').lower()})"
    )


main()
