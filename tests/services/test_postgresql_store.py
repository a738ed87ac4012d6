from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from harness.postgres import PostgreSQL, postgresql
from harness.store_contract import LONG
from harness.store_documents import EXPIRE, NOON, TABLE, execution, record
from harness.store_processes import SharedStoreContract

from airflow_provider_floe.errors import ConfigurationError, StoreUnavailable
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, SlotOutcome

pytestmark = pytest.mark.services

_schemas = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@pytest.fixture
def schema(server: PostgreSQL) -> str:
    name = f"store_{next(_schemas)}"
    server.execute(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture
def url(server: PostgreSQL, schema: str) -> str:
    return server.url(schema=schema)


@pytest.fixture
def store(url: str) -> Iterator[FloeStore]:
    opened = open_store(url)
    yield opened
    opened.close()


def cut_connections(server: PostgreSQL) -> None:
    """As a restart or a failover does."""
    ours = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")


class TestPostgreSQL(SharedStoreContract):
    def test_it_is_shared_and_says_where_it_is_without_the_password(self, store: FloeStore, server: PostgreSQL) -> None:
        assert store.shared
        place = f"PostgreSQL database postgres on 127.0.0.1:{server.port}"
        assert store.describe() == f"{place}, schema version 2"
        assert repr(store) == f"<SqlStore: {place}>"

    def test_it_goes_on_after_the_server_cut_its_connections(self, store: FloeStore, server: PostgreSQL) -> None:
        assert store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
        cut_connections(server)
        assert store.consumed_slot(TABLE, EXPIRE) == NOON

    def test_a_cut_within_a_transaction_is_a_retryable_error_and_saves_nothing(
        self, store: FloeStore, server: PostgreSQL
    ) -> None:
        def cut_halfway() -> None:
            with store.transaction():
                store.save_operation(record())
                cut_connections(server)
                store.record_slot(execution(NOON, SlotOutcome.EXECUTED))

        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{server.port} did not answer: .*Check that") as caught:
            cut_halfway()
        assert caught.value.retryable
        assert server.password not in f"{caught.value}{caught.value.__cause__}"
        assert store.operations() == []

    def test_the_other_driver_does_the_same(self, store: FloeStore, server: PostgreSQL, schema: str) -> None:
        other = open_store(server.url(schema=schema, driver="psycopg"))
        saved = record()
        other.save_operation(saved)
        other.record_outputs(saved.id, (str(number) for number in range(6000)))
        assert len(store.journal(saved.id)) == 6000
        lease = other.acquire(TABLE, "run 1", LONG)
        assert lease is not None
        assert other.transition(saved.id, expect=[saved.status], to=saved.status, lease=lease) == saved
        assert store.acquire(TABLE, "run 2", LONG) is None
        other.close()

    def test_writers_do_not_wait_for_ever(self, store: FloeStore) -> None:
        with store._database.write() as connection:  # type: ignore[attr-defined]
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "30s"
            assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "5min"

    def test_the_session_s_time_zone_changes_nothing(self, store: FloeStore, server: PostgreSQL) -> None:
        server.execute("ALTER ROLE floe SET TimeZone = 'Asia/Kathmandu'")
        try:
            cut_connections(server)
            store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
            assert store.consumed_slot(TABLE, EXPIRE) == NOON
            self.test_clock_is_aware_utc_and_runs(store)
        finally:
            server.execute("ALTER ROLE floe RESET TimeZone")


def test_a_wrong_password_is_reported_without_it(server: PostgreSQL) -> None:
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        open_store(server.url(password="wr0ng/secret"))
    assert "wr0ng" not in f"{caught.value}{caught.value.__cause__}"


def test_a_user_who_may_not_create_tables_is_told_so(server: PostgreSQL, schema: str) -> None:
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    server.execute(f"GRANT USAGE ON SCHEMA {schema} TO guest")
    url = server.url(schema=schema, password="guest").replace("floe:", "guest:", 1)
    with pytest.raises(ConfigurationError, match=r"permission denied for schema .*right to create tables"):
        open_store(url)
