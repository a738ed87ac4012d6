from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_floe.errors import ConfigurationError, StoreUnavailable
from airflow_provider_floe.stores.open import ENTRY_POINT_GROUP, open_store


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/opt/airflow/floe.db", "has no scheme"),
        ("mysql://root:hush@host/db", "no Floe store is registered for URLs of scheme 'mysql'; known are: memory, p"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///floe.db", "is relative"),
        ("memory://here", "takes no place"),
        ("postgresql://floe:hush@host", "names no database"),
        ("postgresql+asyncpg://floe:hush@host/db", "driver 'asyncpg' of the Floe store's URL is not supported"),
        ("postgresql://floe:hush@host:port/db", "cannot be read; percent-encode"),
    ],
)
def test_a_wrong_url_is_refused_with_the_fix_and_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_store(url)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"database db on 127\.0\.0\.1:1 did not answer: .*Check that") as caught:
        open_store("postgresql://floe:hush@127.0.0.1:1/db")
    assert caught.value.retryable
    assert "hush" not in f"{caught.value}{caught.value.__cause__}"


def test_a_third_party_registers_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_store.py").write_text("def open_acme(url):\n    return ['acme', url]\n")
    metadata = tmp_path / "acme_store-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-store\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nacme = acme_store:open_acme\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert open_store("acme+tls://host/x") == ["acme", "acme+tls://host/x"]
    finally:
        sys.modules.pop("acme_store", None)
