"""What Polaris' own Python client sees; run in an environment of its own.

Arguments: URI of the catalog, client id, client secret, catalog, namespace, table. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from apache_polaris.sdk.catalog import (  # type: ignore[import-not-found]
    ApiClient,
    ApiException,
    Configuration,
    IcebergCatalogAPI,
    IcebergConfigurationAPI,
    IcebergOAuth2API,
)


def refusal(ask: Any, *arguments: str, **named: str) -> list[Any]:
    """Status and body of the error that a request ends with."""
    try:
        ask(*arguments, **named)
    except ApiException as error:
        return [error.status, json.loads(error.body)]
    return []


def main(host: str, client: str, secret: str, catalog: str, namespace: str, table: str) -> None:
    tokens = IcebergOAuth2API(ApiClient(Configuration(host=host)))
    form = {"grant_type": "client_credentials", "client_id": client, "scope": "PRINCIPAL_ROLE:ALL"}
    token = tokens.get_token(client_secret=secret, **form).access_token
    api = ApiClient(Configuration(host=host, access_token=token))
    config, content = IcebergConfigurationAPI(api), IcebergCatalogAPI(api)
    found = {
        "wrong secret": refusal(tokens.get_token, client_secret="wrong", **form),
        "wrong scope": refusal(tokens.get_token, **{**form, "client_secret": secret, "scope": "catalog"}),
        "overrides": config.get_config(warehouse=catalog).overrides,
        "wrong warehouse": refusal(config.get_config, warehouse="other"),
        "namespaces": content.list_namespaces(catalog, parent=namespace).namespaces,
        "tables": [one.name for one in content.list_tables(catalog, namespace).identifiers],
        "snapshot": content.load_table(catalog, namespace, table).metadata.current_snapshot_id,
        "vended": refusal(
            content.load_table, catalog, namespace, table, x_iceberg_access_delegation="vended-credentials"
        ),
        "no table": refusal(content.load_table, catalog, namespace, "nope"),
    }
    print(json.dumps(found))


main(*sys.argv[1:])
