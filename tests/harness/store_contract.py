"""What every Floe store must do, whatever database it is on: test classes derive from this one."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from harness.store_documents import (
    EXPIRE,
    MINUTE,
    NOON,
    OTHER,
    TABLE,
    execution,
    plan,
    policy,
    record,
    report,
    wait_until_after,
)

from airflow_provider_floe.engines.base import Deletion
from airflow_provider_floe.errors import LeaseLost
from airflow_provider_floe.health.report import Assessment
from airflow_provider_floe.planning.model import OperationHistory
from airflow_provider_floe.stores.protocols import FileGroup, FloeStore, JournalKind, OperationStatus, SlotOutcome
from airflow_provider_floe.tables import Operation, TableRef

LONG = timedelta(minutes=5)
SHORT = timedelta(milliseconds=5)
S = OperationStatus


class StoreContract:
    """Needs a fixture ``store``: an empty one."""

    def test_clock_is_aware_utc_and_runs(self, store: FloeStore) -> None:
        first = store.now()
        assert first.tzinfo is UTC
        assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
        wait_until_after(store, first)

    def test_description_names_the_schema_version(self, store: FloeStore) -> None:
        assert store.schema_version() == 2
        assert "schema version 2" in store.describe()

    # --- policies

    def test_policies_come_back_by_name_and_each_change_shows(self, store: FloeStore) -> None:
        start = store.policy_revision()
        store.put_policy(policy("b"))
        store.put_policy(policy("A"))
        store.put_policy(policy("b", "prod.*"))
        assert [(p.name, p.table_pattern) for p in store.policies()] == [("A", "prod.sales.*"), ("b", "prod.*")]
        changed = store.policy_revision()
        assert changed > start
        store.put_policy(policy("b", "prod.*"))
        assert store.policy_revision() == changed, "an equal document is no change"
        assert store.delete_policy("b")
        assert not store.delete_policy("b")
        assert store.policy_revision() > changed
        assert store.policies() == [policy("A")]

    # --- health

    def test_reports_come_back_newest_first_whole(self, store: FloeStore) -> None:
        now = store.now()
        saved = [report(now - age * MINUTE) for age in (2, 0, 1)]
        store.save_reports(saved)
        store.save_reports([*saved, report(now, OTHER)])
        assert store.reports(TABLE) == sorted(saved, key=lambda r: r.assessed_at, reverse=True)
        assert store.latest_report(TABLE) == saved[1]
        assert store.reports(TABLE, limit=1) == [saved[1]]
        assert store.latest_report(TableRef("prod", ("sales",), "none")) is None

    def test_reports_beyond_count_and_age_are_dropped(self, store: FloeStore) -> None:
        now = store.now()
        old = report(now - timedelta(days=31), OTHER)
        store.save_reports([old], keep_days=60)
        store.save_reports([report(now - age * MINUTE) for age in range(5)], keep_per_table=3, keep_days=60)
        assert [r.assessed_at for r in store.reports(TABLE)] == [now - age * MINUTE for age in range(3)]
        assert store.reports(OTHER) == [old], "the count is per table"
        store.save_reports([], keep_days=30)
        assert store.reports(OTHER) == []

    def test_assessment_is_handed_over(self, store: FloeStore) -> None:
        assessment = Assessment(created_at=NOON, reports=(report(NOON),), context={"force": True})
        store.save_assessment(assessment)
        store.save_assessment(assessment)
        assert store.assessment(assessment.id) == assessment
        with pytest.raises(KeyError):
            store.assessment("none")

    # --- plans and budget

    def test_plans_come_back_newest_first_whole(self, store: FloeStore) -> None:
        saved = [plan(1, created_at=NOON + age * MINUTE) for age in (0, 2, 1)]
        for one in saved:
            store.save_plan(one)
        assert store.plan(saved[0].id) == saved[0]
        assert store.plans(limit=2) == [saved[1], saved[2]]
        with pytest.raises(KeyError):
            store.plan("none")

    def test_a_saved_plan_does_not_change(self, store: FloeStore) -> None:
        saved = plan(1)
        store.save_plan(saved)
        store.save_plan(saved)
        with pytest.raises(ValueError, match="cannot be changed"):
            store.save_plan(saved.model_copy(update={"run_id": "other"}))
        assert store.plan(saved.id) == saved

    def test_budget_is_reserved_settled_and_never_exceeded(self, store: FloeStore) -> None:
        first, second = plan(40, 20, cut=1000), plan(41)
        assert store.reserve_and_save(first, max_bytes=100)
        assert store.bytes_reserved() == 60
        assert not store.reserve_and_save(second, max_bytes=100)
        with pytest.raises(KeyError):
            store.plan(second.id)
        store.settle_bytes(first.to_run[0].id, 0)
        store.settle_bytes(first.to_run[1].id, 59)
        store.settle_bytes("an item that reserved nothing", 5)
        assert store.bytes_reserved() == 59
        assert store.reserve_and_save(second, max_bytes=100)
        assert store.bytes_reserved() == 100
        assert store.reserve_and_save(plan(0), max_bytes=100), "a plan that reads nothing fits always"
        assert store.reserve_and_save(plan(5000), max_bytes=0), "0 is unlimited"

    def test_saving_a_plan_reserves_nothing(self, store: FloeStore) -> None:
        store.save_plan(plan(40))
        assert store.bytes_reserved() == 0

    def test_saving_a_reserved_plan_again_reserves_it_once(self, store: FloeStore) -> None:
        saved = plan(40)
        assert store.reserve_and_save(saved, max_bytes=100)
        assert store.reserve_and_save(saved, max_bytes=100)
        assert store.bytes_reserved() == 40

    def test_budget_comes_back_when_the_window_has_passed(self, store: FloeStore) -> None:
        assert store.reserve_and_save(plan(100), max_bytes=100, window=SHORT)
        wait_until_after(store, store.now() + SHORT)
        assert store.bytes_reserved(SHORT) == 0
        assert store.reserve_and_save(plan(100), max_bytes=100, window=SHORT)
        assert store.bytes_reserved() == 200

    # --- operations

    def test_operations_are_found_by_what_they_are_about_newest_first(self, store: FloeStore) -> None:
        berlin = timezone(timedelta(hours=2))
        early = record(S.FAILED, NOON.astimezone(berlin) - MINUTE, plan_id="p1", commit_detail={"snapshot": 1})
        late = record(S.SUCCESS, NOON, changed=True, operation=Operation.REWRITE_MANIFESTS, plan_id="p1")
        other = record(S.RUNNING, NOON + MINUTE, table=OTHER)
        for one in (late, other, early):
            store.save_operation(one)
        assert store.operation(early.id) == early
        assert store.operation(early.id).started_at.utcoffset() is not None
        assert store.operations() == [other, late, early]
        assert store.operations(limit=1) == [other]
        assert store.operations(table=TABLE) == [late, early]
        assert store.operations(operation=EXPIRE) == [other, early]
        assert store.operations(plan_id="p1", statuses=[S.FAILED]) == [early]
        assert store.operations(statuses=[]) == []
        with pytest.raises(KeyError):
            store.operation("none")

    def test_an_operation_is_created_once(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        with pytest.raises(ValueError, match="already"):
            store.save_operation(saved)

    def test_transition_changes_status_and_fields(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        moved = store.transition(
            saved.id, expect=[S.PENDING, S.RUNNING], to=S.COMMITTING, commit_detail={"snapshot": 7}
        )
        assert (moved.status, moved.commit_detail, moved.finished_at) == (S.COMMITTING, {"snapshot": 7}, None)
        ended = store.transition(saved.id, expect=[S.COMMITTING], to=S.FAILED, error="boom")
        assert ended.finished_at is not None
        assert abs(ended.finished_at - store.now()) < timedelta(minutes=1)
        assert store.operation(saved.id) == ended
        assert store.operations(statuses=[S.FAILED]) == [ended]

    def test_transition_refuses_another_status_and_unknown_fields(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        with pytest.raises(LeaseLost, match="is RUNNING, not COMMITTING"):
            store.transition(saved.id, expect=[S.COMMITTING], to=S.SUCCESS)
        with pytest.raises(ValueError, match="outcome"):
            store.transition(saved.id, expect=[S.RUNNING], to=S.SUCCESS, outcome="x")
        with pytest.raises(ValueError, match="table"):
            store.transition(saved.id, expect=[S.RUNNING], to=S.SUCCESS, table=OTHER)
        with pytest.raises(KeyError):
            store.transition("none", expect=[S.RUNNING], to=S.SUCCESS)
        assert store.operation(saved.id) == saved

    def test_history_of_no_runs(self, store: FloeStore) -> None:
        assert store.history(TABLE) == {operation: OperationHistory() for operation in Operation}

    @pytest.mark.parametrize(
        ("runs", "expected"),
        [
            pytest.param("ok ok fail kill part", {"failures": 3, "failing": 3, "same": 0, "success": 1}, id="failing"),
            pytest.param("fail fail same same", {"failures": 2, "failing": 0, "same": 2, "success": 3}, id="no change"),
            pytest.param("same ok same", {"failures": 0, "failing": 0, "same": 1, "success": 2}, id="change between"),
            pytest.param("same fail same same", {"failures": 1, "failing": 0, "same": 2, "success": 3}, id="mixed"),
            pytest.param("same fail", {"failures": 1, "failing": 1, "same": 0, "success": 0}, id="failed last"),
            pytest.param("ok fail unknown", {"failures": 1, "failing": 1, "same": 0, "success": 0}, id="unsettled"),
        ],
    )
    def test_history_counts_back_from_the_newest_run(
        self, store: FloeStore, runs: str, expected: dict[str, int]
    ) -> None:
        kinds = {
            "ok": (S.SUCCESS, True),
            "same": (S.SUCCESS, False),
            "fail": (S.FAILED, None),
            "part": (S.PARTIAL_FAILURE, None),
            "kill": (S.INTERRUPTED, None),
            "unknown": (S.UNKNOWN, None),
        }
        names = runs.split()
        for age, name in enumerate(names):
            status, changed = kinds[name]
            store.save_operation(record(status, NOON + age * 10 * MINUTE, changed=changed))
        # what did not run, another operation and another table count nothing
        store.save_operation(record(S.SKIPPED, NOON + timedelta(days=1)))
        store.save_operation(record(S.RUNNING, NOON + timedelta(days=1)))
        store.save_operation(record(S.FAILED, NOON, operation=Operation.REWRITE_MANIFESTS))
        store.save_operation(record(S.FAILED, NOON, table=OTHER))
        found = store.history(TABLE)[EXPIRE]
        assert (found.known, found.runs, found.failures) == (True, len(names), expected["failures"])
        assert found.consecutive_failures == found.failures_since_success == expected["failing"]
        assert found.consecutive_zero_changes == expected["same"]
        assert found.last_run_at == NOON + (len(names) - 1) * 10 * MINUTE + MINUTE
        assert found.last_success_at == NOON + expected["success"] * 10 * MINUTE + MINUTE
        failed = [age for age, name in enumerate(names) if name in ("fail", "part", "kill")]
        assert found.last_failure_at == (NOON + failed[-1] * 10 * MINUTE + MINUTE if failed else None)
        assert store.history(TABLE)[Operation.REWRITE_MANIFESTS].runs == 1

    def test_history_knows_whether_the_throttle_skipped_the_last_slot(self, store: FloeStore) -> None:
        store.record_slot(execution(NOON, SlotOutcome.THROTTLED))
        store.record_slot(execution(NOON, SlotOutcome.EXECUTED, table=OTHER))
        assert store.history(TABLE)[EXPIRE].last_slot_throttled
        assert not store.history(OTHER)[EXPIRE].last_slot_throttled
        store.record_slot(execution(NOON + MINUTE, SlotOutcome.BUSY))
        assert store.history(TABLE)[EXPIRE].last_slot_throttled, "a slot still open says nothing yet"
        store.record_slot(execution(NOON + MINUTE, SlotOutcome.EXECUTED))
        assert not store.history(TABLE)[EXPIRE].last_slot_throttled

    def test_pruning_drops_old_finished_records_with_what_hangs_on_them(self, store: FloeStore) -> None:
        now = store.now()
        old = now - timedelta(days=400)
        kept_plan, dropped_plan = plan(1, created_at=old), plan(2, created_at=old)
        store.save_plan(kept_plan)
        assert store.reserve_and_save(dropped_plan, max_bytes=0)
        dropped = record(S.SUCCESS, old, changed=True, plan_id=dropped_plan.id)
        unsettled = record(S.UNKNOWN, old, plan_id=kept_plan.id)
        fresh = record(S.FAILED, now)
        for one in (dropped, unsettled, fresh, record(S.RUNNING, old)):
            store.save_operation(one)
        store.record_outputs(dropped.id, ["a"])
        for age, outcome in ((900, SlotOutcome.EXECUTED), (800, SlotOutcome.EXECUTED), (700, SlotOutcome.BUSY)):
            store.record_slot(execution(now - timedelta(days=age), outcome))
        assert store.prune_operations(keep_days=365) == 1
        assert dropped.id not in {one.id for one in store.operations()}
        assert len(store.operations()) == 3
        assert store.journal(dropped.id) == []
        assert store.plans() == [kept_plan]
        assert store.bytes_reserved() == 0
        assert [one.outcome for one in store.slots(TABLE, EXPIRE)] == [SlotOutcome.BUSY, SlotOutcome.EXECUTED], (
            "the newest consumed slot says what is due"
        )

    # --- schedule

    def test_a_slot_is_consumed_once_and_explains_itself_until_then(self, store: FloeStore) -> None:
        assert store.consumed_slot(TABLE, EXPIRE) is None
        assert store.last_slot(TABLE, EXPIRE) is None
        assert store.record_slot(execution(NOON, SlotOutcome.BUSY, "held by run 1"))
        assert store.record_slot(execution(NOON, SlotOutcome.CUT, "budget"))
        assert store.consumed_slot(TABLE, EXPIRE) is None
        assert [one.reason for one in store.slots(TABLE, EXPIRE)] == ["budget"]
        assert store.record_slot(execution(NOON, SlotOutcome.EXECUTED, "done"))
        assert not store.record_slot(execution(NOON, SlotOutcome.FAILED, "late"))
        assert not store.record_slot(execution(NOON, SlotOutcome.BUSY, "late"))
        assert store.slots(TABLE, EXPIRE) == [execution(NOON, SlotOutcome.EXECUTED, "done")]
        later = execution(NOON + MINUTE, SlotOutcome.BLOCKED, "window")
        assert store.record_slot(later)
        assert store.consumed_slot(TABLE, EXPIRE) == NOON
        assert store.last_slot(TABLE, EXPIRE) == later
        assert store.slots(TABLE, EXPIRE, limit=1) == [later]
        assert store.consumed_slot(OTHER, EXPIRE) is None
        assert store.consumed_slot(TABLE, Operation.REWRITE_MANIFESTS) is None

    def test_one_slot_written_in_two_time_zones_is_one(self, store: FloeStore) -> None:
        berlin = timezone(timedelta(hours=2))
        assert store.record_slot(execution(NOON.astimezone(berlin), SlotOutcome.EXECUTED))
        assert not store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
        found = store.consumed_slot(TABLE, EXPIRE)
        assert found is not None
        assert (found, found.tzinfo) == (NOON, UTC)

    # --- leases

    def test_a_lease_is_exclusive_until_released(self, store: FloeStore) -> None:
        lease = store.acquire(TABLE, "run 1", LONG)
        assert lease is not None
        assert lease.expires_at.tzinfo is UTC
        assert abs(lease.expires_at - store.now() - LONG) < timedelta(minutes=1)
        assert store.acquire(TABLE, "run 2", LONG) is None
        assert store.acquire(TABLE, "run 1", LONG) is None, "also against itself: a retry may meet its own zombie"
        assert store.acquire(OTHER, "run 2", LONG) is not None
        assert store.lease(TABLE) == lease
        assert store.holds(lease)
        store.release(lease)
        assert not store.holds(lease)
        assert store.lease(TABLE) is None
        assert store.acquire(TABLE, "run 2", LONG) is not None

    def test_an_expired_lease_is_taken_over_with_a_new_token(self, store: FloeStore) -> None:
        old = store.acquire(TABLE, "run 1", SHORT)
        assert old is not None
        wait_until_after(store, old.expires_at)
        assert store.lease(TABLE) == old, "it stands until somebody takes it"
        assert not store.holds(old)
        with pytest.raises(LeaseLost, match="ran out"):
            store.renew(old, LONG)
        new = store.acquire(TABLE, "run 2", LONG)
        assert new is not None
        assert new.token != old.token
        with pytest.raises(LeaseLost, match="run 2 has taken it over"):
            store.renew(old, LONG)
        store.release(old)
        assert store.holds(new)

    def test_a_lease_that_was_handed_over_is_taken_by_its_token(self, store: FloeStore) -> None:
        old = store.acquire(TABLE, "run 1", MINUTE)
        assert old is not None
        assert store.take_over(TABLE, "another's", "run 2", LONG) is None
        assert store.take_over(OTHER, old.token, "run 2", LONG) is None
        taken = store.take_over(TABLE, old.token, "run 2", LONG)
        assert taken is not None
        assert (taken.holder, taken.token == old.token, store.lease(TABLE)) == ("run 2", False, taken)
        assert taken.expires_at > old.expires_at
        with pytest.raises(LeaseLost, match="run 2 has taken it over"):
            store.renew(old, LONG)
        assert store.take_over(TABLE, old.token, "run 3", LONG) is None

    def test_a_renewed_lease_lasts_longer(self, store: FloeStore) -> None:
        lease = store.acquire(TABLE, "run 1", MINUTE)
        assert lease is not None
        renewed = store.renew(lease, LONG)
        assert renewed.token == lease.token
        assert renewed.expires_at > lease.expires_at
        assert store.lease(TABLE) == renewed

    def test_the_fence_stops_who_lost_the_lease(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        lease = store.acquire(TABLE, "run 1", SHORT)
        assert lease is not None
        wait_until_after(store, lease.expires_at)
        with pytest.raises(LeaseLost, match="ran out"):
            store.transition(saved.id, expect=[S.RUNNING], to=S.COMMITTING, lease=lease)
        taken = store.acquire(TABLE, "run 2", LONG)
        assert taken is not None
        with pytest.raises(LeaseLost, match="taken it over"):
            store.transition(saved.id, expect=[S.RUNNING], to=S.COMMITTING, lease=lease)
        assert store.operation(saved.id) == saved
        assert store.transition(saved.id, expect=[S.RUNNING], to=S.COMMITTING, lease=taken).status is S.COMMITTING
        store.release(taken)
        with pytest.raises(LeaseLost, match="released"):
            store.transition(saved.id, expect=[S.COMMITTING], to=S.SUCCESS, lease=taken)

    def test_another_tables_lease_is_no_fence(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        lease = store.acquire(OTHER, "run 1", LONG)
        with pytest.raises(ValueError, match="not prod"):
            store.transition(saved.id, expect=[S.RUNNING], to=S.COMMITTING, lease=lease)

    # --- journal

    def test_journal_follows_each_file(self, store: FloeStore) -> None:
        saved = record(S.FAILED)
        store.save_operation(saved)
        store.record_outputs(saved.id, (f"s3://b/t/{number}" for number in (2, 1)))
        moved = Deletion("s3://b/t/old", 10, "orphan since 4 days", "s3://b/t/quarantine/old")
        store.record_deletions(saved.id, [moved, Deletion("s3://b/t/1", 5, "no longer reachable")])
        entries = store.journal(saved.id)
        assert [(one.kind, one.path) for one in entries] == [
            (JournalKind.OUTPUT, "s3://b/t/2"),
            (JournalKind.OUTPUT, "s3://b/t/1"),
            (JournalKind.DELETION, "s3://b/t/old"),
            (JournalKind.DELETION, "s3://b/t/1"),
        ]
        assert (entries[2].size_bytes, entries[2].reason, entries[2].quarantined_to) == (
            moved.size_bytes,
            moved.reason,
            moved.quarantined_to,
        )
        assert all(one.recorded_at.tzinfo is UTC and one.done_at is None for one in entries)
        store.mark_done(saved.id, JournalKind.DELETION, ["s3://b/t/1", "s3://b/t/old"])
        store.mark_restored(saved.id, ["s3://b/t/old"])
        deletions = store.journal(saved.id, JournalKind.DELETION)
        assert [(one.done_at is not None, one.restored_at is not None) for one in deletions] == [
            (True, True),
            (True, False),
        ]
        assert [one.done_at for one in store.journal(saved.id, JournalKind.OUTPUT)] == [None, None]
        wait_until_after(store, store.now())
        store.mark_done(saved.id, JournalKind.DELETION, ["s3://b/t/old"])
        assert store.journal(saved.id, JournalKind.DELETION) == deletions, "the first time stands"

    def test_outputs_of_dead_operations_stay_open_until_cleaned_up(self, store: FloeStore) -> None:
        for status in S:
            one = record(status, id=status.value)
            store.save_operation(one)
            store.record_outputs(one.id, [f"{status}/a", f"{status}/b"])
        elsewhere = record(S.FAILED, table=OTHER)
        store.save_operation(elsewhere)
        store.record_outputs(elsewhere.id, ["c"])
        store.mark_done("FAILED", JournalKind.OUTPUT, ["FAILED/a"])
        assert {one.path for one in store.open_outputs(TABLE)} == {"FAILED/b", "INTERRUPTED/a", "INTERRUPTED/b"}

    def test_many_files_are_recorded_all_or_none(self, store: FloeStore) -> None:
        saved = record(S.INTERRUPTED)
        store.save_operation(saved)
        paths = [f"s3://bucket/warehouse/db/table/data/{number:06d}.parquet" for number in range(6000)]
        paths += [f"s3://bucket/{'ä' * 3000}/{number}" for number in range(10)]

        def dies() -> object:
            yield from paths
            raise RuntimeError("listing failed")

        with pytest.raises(RuntimeError):
            store.record_outputs(saved.id, dies())
        assert store.journal(saved.id) == []
        store.record_outputs(saved.id, paths)
        store.mark_done(saved.id, JournalKind.OUTPUT, paths[1:])
        assert [one.path for one in store.open_outputs(TABLE)] == paths[:1]

    def test_a_file_recorded_again_has_one_entry_with_the_newer_plan(self, store: FloeStore) -> None:
        saved = record()
        store.save_operation(saved)
        store.record_outputs(saved.id, ["a", "b", "a"])
        assert [one.path for one in store.journal(saved.id)] == ["a", "b"]
        store.record_deletions(saved.id, [Deletion("a", 1, "first"), Deletion("b", 1, "first")])
        store.mark_done(saved.id, JournalKind.DELETION, ["b"])
        store.record_deletions(saved.id, [Deletion("a", 2, "again", "q/a"), Deletion("b", 2, "again", "q/b")])
        found = store.journal(saved.id, JournalKind.DELETION)
        assert [(one.path, one.size_bytes, one.reason, one.quarantined_to) for one in found] == [
            ("a", 2, "again", "q/a"),
            ("b", 1, "first", None),
        ], "what was done already stays as it was"

    def test_the_journal_needs_an_operation(self, store: FloeStore) -> None:
        with pytest.raises(KeyError, match="none"):
            store.record_outputs("none", ["a"])
        with pytest.raises(KeyError, match="none"):
            store.record_deletions("none", [Deletion("a", 1, "r")])

    # --- transactions

    def test_a_transaction_is_all_or_nothing(self, store: FloeStore) -> None:
        saved = record()

        def dies_halfway() -> None:
            with store.transaction():
                store.save_operation(saved)
                with store.transaction():
                    store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
                assert store.operation(saved.id) == saved, "its own writes are visible inside"
                raise RuntimeError("killed")

        with pytest.raises(RuntimeError):
            dies_halfway()
        assert store.operations() == []
        assert store.consumed_slot(TABLE, EXPIRE) is None
        with store.transaction():
            store.save_operation(saved)
            store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
        assert store.operation(saved.id) == saved
        assert store.consumed_slot(TABLE, EXPIRE) == NOON

    def test_a_call_that_fails_within_a_transaction_leaves_the_rest(self, store: FloeStore) -> None:
        saved = record()
        with store.transaction():
            store.save_operation(saved)
            with pytest.raises(KeyError):
                store.record_outputs("none", ["a"])
            store.record_outputs(saved.id, ["b"])
        assert [one.path for one in store.journal(saved.id)] == ["b"]

    def test_threads_share_one_store(self, store: FloeStore) -> None:
        errors: list[BaseException] = []

        def work(name: str) -> None:
            try:
                for number in range(10):
                    with store.transaction():
                        saved = record(S.RUNNING, NOON, id=f"{name}-{number}")
                        store.save_operation(saved)
                        store.record_outputs(saved.id, [f"{name}/{number}"])
                    assert store.transition(saved.id, expect=[S.RUNNING], to=S.SUCCESS).status is S.SUCCESS
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(store.operations(statuses=[S.SUCCESS])) == 30

    # --- file groups

    def offered(self, store: FloeStore, *numbers: int) -> str:
        at_work = record(S.RUNNING)
        store.save_operation(at_work)
        store.offer_file_groups(at_work.id, [offer(number) for number in numbers])
        return at_work.id

    def test_file_groups_are_taken_in_order_by_one_worker_each(self, store: FloeStore) -> None:
        operation_id = self.offered(store, 0, 1, 2)
        assert [store.claim_file_group(operation_id, "a", LONG, before=2) for _ in range(3)] == [0, 1, None]
        assert store.claim_file_group(operation_id, "b", LONG, before=9) == 2
        assert [group.worker for group in store.file_groups(operation_id)] == ["a", "a", "b"]
        assert [group.digest for group in store.file_groups(operation_id)] == ["digest 0", "digest 1", "digest 2"]
        store.give_back_file_groups(operation_id, "a", 1)
        assert store.claim_file_group(operation_id, "b", LONG, before=9) == 1
        store.give_back_file_groups(operation_id, "b")
        assert [group.worker for group in store.file_groups(operation_id)] == ["a", None, None]

    def test_a_file_group_counts_once_from_whoever_has_it(self, store: FloeStore) -> None:
        operation_id = self.offered(store, 0, 1)
        store.claim_file_group(operation_id, "a", LONG, before=9)
        store.finish_file_group(operation_id, "a", 0, {"files": ["f"]})
        assert [group.written for group in store.file_groups(operation_id)] == [{"files": ["f"]}, None]
        assert store.unfinished_file_groups(operation_id, before=1) == 0
        assert store.unfinished_file_groups(operation_id, before=2) == 1
        for worker, number in (("a", 0), ("b", 1), ("a", 1)):
            with pytest.raises(LeaseLost, match=f"file group {number}"):
                store.finish_file_group(operation_id, worker, number, {})
        store.give_back_file_groups(operation_id, "a")
        assert store.claim_file_group(operation_id, "b", LONG, before=1) is None, "it is finished"

    def test_a_file_group_that_nobody_keeps_is_free(self, store: FloeStore) -> None:
        operation_id = self.offered(store, 0, 1)
        assert store.claim_file_group(operation_id, "kept", LONG, before=9) == 0
        assert store.claim_file_group(operation_id, "dead", SHORT, before=9) == 1
        wait_until_after(store, store.now() + SHORT)
        assert store.claim_file_group(operation_id, "other", LONG, before=9) == 1
        assert store.claim_file_group(operation_id, "other", LONG, before=9) is None
        with pytest.raises(LeaseLost):
            store.finish_file_group(operation_id, "dead", 1, {})
        store.finish_file_group(operation_id, "other", 1, {})
        store.renew_file_groups(operation_id, "kept", SHORT)
        wait_until_after(store, store.now() + SHORT)
        assert store.claim_file_group(operation_id, "other", LONG, before=9) == 0

    def test_file_groups_end_with_their_operation(self, store: FloeStore) -> None:
        operation_id = self.offered(store, 0)
        store.claim_file_group(operation_id, "a", LONG, before=9)
        store.transition(operation_id, expect=(S.RUNNING,), to=S.INTERRUPTED)
        with pytest.raises(LeaseLost, match="the operation is over"):
            store.finish_file_group(operation_id, "a", 0, {})
        store.drop_file_groups(operation_id)
        assert store.file_groups(operation_id) == []
        with pytest.raises(KeyError):
            store.offer_file_groups("none", [offer(0)])


def offer(number: int) -> FileGroup:
    return FileGroup(number=number, snapshot_id=2**62 + number, size_bytes=2**40, digest=f"digest {number}")
