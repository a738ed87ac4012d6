"""Several processes on one Floe store: what they do, and the contract that they keep."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import pytest
from harness.store_contract import LONG, SHORT, StoreContract
from harness.store_documents import EXPIRE, MINUTE, NOON, TABLE, execution, plan, record, wait_until_after

from airflow_provider_floe.errors import StoreUnavailable
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, Lease, OperationStatus, SlotOutcome
from airflow_provider_floe.tables import TableRef

PROCESSES = 3
TABLES = [TableRef("prod", ("sales",), f"t{number}") for number in range(12)]


def together(method: str, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(*arguments)`` answers in each of several processes that start it at the same moment."""
    context = multiprocessing.get_context(method)
    barrier = context.Barrier(PROCESSES)
    running = []
    for _ in range(PROCESSES):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(theirs, barrier, work, arguments))
        process.start()
        theirs.close()
        running.append((process, ours))
    answers = [ours.recv() for _, ours in running]
    for process, _ in running:
        process.join()
    return answers


def _answer(pipe: Connection, barrier: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    barrier.wait(60)
    try:
        pipe.send(work(*arguments))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise


def open_and_count(url: str) -> tuple[int, int]:
    store = open_store(url)
    return store.schema_version(), store.policy_revision()


def acquire_each(url: str) -> list[str]:
    store = open_store(url)
    leases = [store.acquire(table, str(os.getpid()), LONG) for table in TABLES]
    return [lease.table.name for lease in leases if lease is not None]


def reserve_each(url: str) -> int:
    store = open_store(url)
    return sum(store.reserve_and_save(plan(6, 4), max_bytes=105) for _ in range(10))


def consume_each(url: str) -> list[int]:
    store = open_store(url)
    return [n for n in range(12) if store.record_slot(execution(NOON + n * MINUTE, SlotOutcome.EXECUTED))]


def save_inherited(store: FloeStore) -> bool:
    """With a store object that crossed a fork."""
    saved = record(OperationStatus.SUCCESS)
    store.save_operation(saved)
    return store.operation(saved.id) == saved


class SharedStoreContract(StoreContract):
    """Needs the fixtures ``url``, of an empty place, and ``store``, opened there."""

    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_processes_that_start_at_once_migrate_once(self, url: str, method: str) -> None:
        assert together(method, open_and_count, url) == [(2, 0)] * PROCESSES

    def test_a_lease_has_one_holder(self, store: FloeStore, url: str) -> None:
        for table in TABLES[:6]:
            expired = store.acquire(table, "dead", SHORT)
            assert expired is not None
        wait_until_after(store, expired.expires_at)
        acquired = [name for names in together("fork", acquire_each, url) for name in names]
        assert sorted(acquired) == sorted(table.name for table in TABLES)

    def test_plans_made_at_once_stay_within_the_budget(self, store: FloeStore, url: str) -> None:
        assert sum(together("fork", reserve_each, url)) == 10
        assert store.bytes_reserved() == 100
        assert len(store.plans()) == 10

    def test_a_plan_waits_for_the_reservation_that_another_is_making(self, store: FloeStore, url: str) -> None:
        rival = open_store(url)
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(rival.reserve_and_save(plan(60), max_bytes=100)))
        with store.transaction():
            assert store.reserve_and_save(plan(60), max_bytes=100)
            thread.start()
            thread.join(0.3)
            assert answers == []
        thread.join()
        assert answers == [False]
        rival.close()

    def test_a_slot_is_consumed_by_one(self, url: str, store: FloeStore) -> None:
        consumed = [number for numbers in together("fork", consume_each, url) for number in numbers]
        assert sorted(consumed) == list(range(12))
        assert len(store.slots(TABLE, EXPIRE)) == 12

    def test_forks_while_a_thread_writes_share_no_handle(self, store: FloeStore) -> None:
        stop = threading.Event()
        renewals: list[Lease] = []

        def keep_renewing() -> None:
            lease = store.acquire(TABLE, "parent", LONG)
            assert lease is not None
            while not stop.is_set():
                lease = store.renew(lease, LONG)
                renewals.append(lease)

        thread = threading.Thread(target=keep_renewing)
        thread.start()
        try:
            for _ in range(3):
                assert together("fork", save_inherited, store) == [True] * PROCESSES
        finally:
            stop.set()
            thread.join()
        assert len(store.operations()) == 3 * PROCESSES
        assert store.lease(TABLE) == renewals[-1]

    def test_a_child_forked_in_a_transaction_refuses_to_use_it(self, store: FloeStore) -> None:
        with store.transaction():
            store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
            answers = together("fork", save_inherited, store)
        assert all(answer.startswith(f"{StoreUnavailable.__name__}: this process was forked") for answer in answers)
        assert store.consumed_slot(TABLE, EXPIRE) == NOON
        assert store.operations() == []

    def test_a_child_forked_in_a_transaction_does_not_end_it(self, store: FloeStore) -> None:
        saved = record()
        child = 0
        try:
            with store.transaction(), store.transaction():
                store.save_operation(saved)
                child = os.fork()
        except StoreUnavailable:
            os._exit(0 if child == 0 else 1)
        if child == 0:
            os._exit(2)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert store.operation(saved.id) == saved

    def test_a_killed_writer_leaves_nothing_half_done(self, store: FloeStore, url: str) -> None:
        child = multiprocessing.get_context("fork").Process(target=_die_in_transaction, args=(url,))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert store.operations() == []
        assert store.acquire(TABLE, "next", LONG) is not None

    def test_a_lease_cannot_be_taken_over_before_a_fenced_transition_ends(self, store: FloeStore, url: str) -> None:
        saved = record()
        store.save_operation(saved)
        lease = store.acquire(TABLE, "run 1", timedelta(milliseconds=200))
        assert lease is not None
        rival = open_store(url)
        seen: list[OperationStatus] = []

        def take_over() -> None:
            wait_until_after(rival, lease.expires_at)
            assert rival.acquire(TABLE, "run 2", LONG) is not None
            seen.append(rival.operation(saved.id).status)

        thread = threading.Thread(target=take_over)
        with store.transaction():
            store.transition(saved.id, expect=[saved.status], to=OperationStatus.COMMITTING, lease=lease)
            thread.start()
            wait_until_after(store, lease.expires_at)
            thread.join(0.3)
            assert seen == []
        thread.join()
        assert seen == [OperationStatus.COMMITTING]
        rival.close()


def _die_in_transaction(url: str) -> None:
    store = open_store(url)
    with store.transaction():
        store.save_operation(record())
        os.kill(os.getpid(), signal.SIGKILL)
