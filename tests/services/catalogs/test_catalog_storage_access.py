"""Tables whose storage lets in only whom the catalog sends: credentials that Nessie vends; and its branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import requests
from catalog_tables import Lake, maintain
from harness.catalogs.base import Place
from harness.services.base import Facts
from harness.services.nessie import VENDED
from harness.services.running import use
from harness.services.s3 import file_io_properties
from harness.tables import data_files, rows_digest

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.stores.protocols import OperationStatus
from airflow_provider_floe.tables import Operation


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Facts]]:
    with use("s3", "nessie") as running:
        yield running


@pytest.fixture(scope="module")
def nessie(services: dict[str, Facts]) -> Facts:
    return services["nessie"]


def lake(nessie: Facts, **extra: Any) -> Lake:
    connection = {"conn_type": "floe", "extra": {"catalog_kind": "nessie", "uri": nessie["uri"], **extra}}
    found = Lake.of(Place(connection), f"access{uuid4().hex[:8]}")
    found.catalog.create_namespace((found.namespace,))
    return found


def test_vended_credentials_open_the_storage(nessie: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    vended = lake(nessie, warehouse=VENDED)
    table = vended.small_files(files=3)
    assert table.io.properties["s3.session-token"]
    assert "s3.access-key-id" not in vended.catalog.properties
    digest = rows_digest(table)
    env = vended.environment()
    result = maintain(env, table, Operation.REWRITE_DATA_FILES, Operation.REWRITE_MANIFESTS)
    assert not result.verdict.failed, result.verdict.failures
    assert rows_digest(table) == digest
    assert len(data_files(table)) == 1


def test_own_keys_are_used_instead_of_what_the_catalog_would_give(nessie: Facts) -> None:
    keys = {"s3.access-key-id": "mine", "s3.secret-access-key": "mine too"}
    own = lake(nessie, warehouse=VENDED, properties=keys)
    table = own.small_files(files=1)
    assert table.io.properties["s3.access-key-id"] == "mine"
    assert "s3.session-token" not in table.io.properties
    asked = lake(nessie, warehouse=VENDED, properties=keys, access_delegation="vended-credentials")
    assert asked.small_files(files=1).io.properties["s3.session-token"]


def test_what_cannot_be_asked_for_is_named(nessie: Facts) -> None:
    for value, words in (
        ("remote-signing", "not supported, .*use vended-credentials"),
        ("vended", "'vended' is not known"),
    ):
        with pytest.raises(ConfigurationError, match=f"'access_delegation': .*{words}"):
            lake(nessie, access_delegation=value)


@pytest.fixture
def reference(services: dict[str, Facts], nessie: Facts) -> Callable[[str, str], Lake]:
    """Makes a branch or tag at the head of main, and opens it."""

    def make(kind: str, namespace: str) -> Lake:
        name, api = f"{kind.lower()}/{namespace}", nessie["native_uri"]
        head = requests.get(f"{api}/trees/main", timeout=60).json()["reference"]
        requests.post(f"{api}/trees?name={name}&type={kind}", json=head, timeout=60).raise_for_status()
        keys = file_io_properties(services["s3"])
        extra = {"catalog_kind": "nessie", "uri": api, "ref": name, "properties": keys}
        return Lake.of(Place({"conn_type": "floe", "extra": extra}), namespace)

    return make


def test_a_branch_is_maintained_and_others_stay_as_they_are(
    services: dict[str, Facts], nessie: Facts, reference: Callable[[str, str], Lake]
) -> None:
    main = lake(nessie, properties=file_io_properties(services["s3"]))
    table = main.small_files(files=3)
    digest = rows_digest(table)
    branch = reference("BRANCH", main.namespace)
    there = branch.catalog.load_table((main.namespace, "events"))
    result = maintain(branch.environment(), there, Operation.REWRITE_DATA_FILES)
    assert not result.verdict.failed, result.verdict.failures
    assert len(data_files(there)) == 1
    assert rows_digest(there) == digest
    assert len(data_files(table.refresh())) == 3
    assert rows_digest(table) == digest


def test_a_tag_is_left_as_it_is(
    services: dict[str, Facts], nessie: Facts, reference: Callable[[str, str], Lake]
) -> None:
    main = lake(nessie, properties=file_io_properties(services["s3"]))
    main.small_files(files=3)
    tag = reference("TAG", main.namespace)
    there = tag.catalog.load_table((main.namespace, "events"))
    result = maintain(tag.environment(), there, Operation.REWRITE_DATA_FILES)
    (record,) = result.records
    assert record.status is OperationStatus.FAILED, record
    assert "the catalog refused the commit" in str(record.error)
    assert len(data_files(there)) == 3


@pytest.mark.parametrize("conn_type", ["floe", "iceberg"])
def test_nessie_is_known_for_what_it_is_whatever_the_connection_says(nessie: Facts, conn_type: str) -> None:
    connection = ConnectionFields("lake", conn_type=conn_type, host=nessie["uri"])
    client = connect(connection)
    for operation in (Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES):
        assert "nessie-gc" in str(client.cannot(operation))
    assert client.cannot(Operation.REWRITE_DATA_FILES) is None
