"""Data files that one task hands over to another come out as they went in."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.typedef import Record

from airflow_provider_floe.engines.local.handed_over import file_from_json, file_to_json
from airflow_provider_floe.engines.local.pyiceberg_manifests import data_file

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.dates(),
    st.times(),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
    st.uuids(),
    st.decimals(allow_nan=False, places=2),
)
columns = st.integers(1, 2**31 - 1)
counts = st.dictionaries(columns, st.integers(0, 2**62), max_size=3)
bounds = st.dictionaries(columns, st.binary(max_size=9), max_size=3)


@given(st.lists(values, max_size=4), counts, bounds, st.none() | st.lists(st.integers(4, 2**40), max_size=3))
def test_nothing_is_lost(
    partition: list[object], found: dict[int, int], limits: dict[int, bytes], offsets: list[int] | None
) -> None:
    metrics = {"value_counts": found, "null_value_counts": found, "lower_bounds": limits, "upper_bounds": limits}
    file = data_file(
        "s3://lake/ä b.parquet", Record(*partition), 7, 2**40, 3, record_count=9, split_offsets=offsets, **metrics
    )
    again = file_from_json(json.loads(json.dumps(file_to_json(file))))
    assert again.spec_id == 7
    for place in range(len(file)):
        ours, theirs = file[place], again[place]
        if isinstance(ours, Record):
            assert [(type(one), one) for one in ours] == [(type(one), one) for one in theirs]
        else:
            assert ours == theirs


def test_values_keep_their_type() -> None:
    given_ = (uuid.UUID(int=5), Decimal("1.20"), date(2026, 1, 2), datetime(2026, 1, 2, 3), time(4, 5), b"\x00", 0.1)
    file = data_file("f", Record(*given_), 0, 1, None, record_count=1)
    again = file_from_json(file_to_json(file)).partition
    assert [(type(one), repr(one)) for one in again] == [(type(one), repr(one)) for one in given_]
