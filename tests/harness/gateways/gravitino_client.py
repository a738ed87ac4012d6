"""What Gravitino's own Python client sees; run in an environment of its own.

Arguments: URI of the server, metalake, catalog, schema. Prints JSON.
"""

from __future__ import annotations

import json
import sys

from gravitino import GravitinoClient  # type: ignore[import-not-found]
from gravitino.exceptions.base import NoSuchMetalakeException  # type: ignore[import-not-found]
from gravitino.namespace import Namespace  # type: ignore[import-not-found]


def main(uri: str, metalake: str, catalog: str, schema: str) -> None:
    try:
        GravitinoClient(uri=uri, metalake_name="nowhere")
        missing = None
    except NoSuchMetalakeException as error:
        missing = str(error)
    client = GravitinoClient(uri=uri, metalake_name=metalake)
    there = client.load_catalog(catalog)
    tables = there.as_table_catalog().list_tables(Namespace.of(schema))
    found = {
        "missing": missing,
        "catalogs": client.get_metalake().list_catalogs(),
        "provider": there.provider(),
        "there": schema in there.as_schemas().list_schemas(),
        "tables": sorted(one.name() for one in tables),
    }
    print(json.dumps(found))


main(*sys.argv[1:])
