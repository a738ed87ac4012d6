"""Arrow's allocator is another while somebody rewrites, and then the one it was."""

from __future__ import annotations

import pyarrow as pa
import pytest

from airflow_provider_floe.engines.local.arrow_memory import CHOSEN_BY_USER, steady_memory


def backend() -> str:
    return str(pa.default_memory_pool().backend_name)


@pytest.fixture(autouse=True)
def not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOSEN_BY_USER, raising=False)


def test_the_last_to_leave_puts_it_back_also_after_a_failure() -> None:
    def fail() -> None:
        with steady_memory():
            assert backend() == "system"
            raise OSError("disk full")

    before = backend()
    with steady_memory():
        with pytest.raises(OSError, match="disk full"):
            fail()
        assert backend() == "system"
        kept = pa.array(range(1000))
    assert backend() == before
    assert kept.to_pylist() == list(range(1000))


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = backend()
    monkeypatch.setenv(CHOSEN_BY_USER, before)
    with steady_memory():
        assert backend() == before
