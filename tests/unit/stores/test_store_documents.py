from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from harness.store_documents import TABLE, policy, record

from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy
from airflow_provider_floe.stores.open import open_store


def test_a_policy_row_that_is_no_valid_policy_is_named_with_its_field(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/floe.db")
    store.put_policy(policy("nightly"))
    _edit(tmp_path, "UPDATE floe_policies SET document = replace(document, '\"retainLast\": 3', '\"retainLast\": 0')")
    with pytest.raises(InvalidPolicy, match=r"policy 'nightly' in the Floe store: expireSnapshots\.retainLast: "):
        store.policies()


def test_a_document_of_another_version_says_which_version_to_use(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/floe.db")
    store.save_operation(record())
    _edit(tmp_path, """UPDATE floe_operations SET document = replace(document, '"run_id"', '"dag_run_id"')""")
    with pytest.raises(ConfigurationError, match="OperationRecord that this version cannot read: dag_run_id"):
        store.operations(table=TABLE)


def _edit(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "floe.db")
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()
