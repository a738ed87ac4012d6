from __future__ import annotations

import pytest
from airflow.sdk import Asset
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.assets import create_asset
from airflow_provider_floe.tables import TableRef

PART = st.text(min_size=1, max_size=8)


@given(st.builds(TableRef, PART, st.lists(PART, min_size=1, max_size=3).map(tuple), PART))
def test_airflow_keeps_the_uri_of_every_table(table):
    for scheme in ("floe", "iceberg"):
        assert TableRef.from_uri(Asset(uri=table.uri(scheme)).uri) == table


@pytest.mark.parametrize("uri", ["iceberg://lake", "iceberg://lake/orders", "floe://lake//orders"])
def test_a_uri_that_names_no_table_is_refused(uri):
    with pytest.raises(ValueError, match=r"table"):
        Asset(uri=uri)


def test_an_asset_is_made_from_the_parts_of_a_table():
    assert create_asset(catalog="lake", namespace="a.b", table="t").uri == "iceberg://lake/a/b/t"
    assert create_asset(catalog="lake", namespace=["a.b"], table="t", scheme="floe").uri == "floe://lake/a.b/t"
