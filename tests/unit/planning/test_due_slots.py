"""Weeks of random schedules, outages, late and cleared runs, busy leases, failures and budgets, on a real store.

Held throughout: no slot is run twice, none is lost, none goes by without a reason on record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plan_builders import inputs, policy, report, request, work

from airflow_provider_floe.engines.base import OperationResult
from airflow_provider_floe.health.report import OperationWork
from airflow_provider_floe.maintenance.slots import decided_outcome
from airflow_provider_floe.planning.due import due_state
from airflow_provider_floe.planning.model import (
    Budgets,
    Disposition,
    Feedback,
    OperationHistory,
    PlanItem,
    TableInputs,
)
from airflow_provider_floe.planning.planner import plan
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.schedules import PolicyTicks, SlotSchedule
from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import (
    FloeStore,
    OperationRecord,
    OperationStatus,
    ScheduleExecution,
    SlotOutcome,
)
from airflow_provider_floe.tables import Operation, TableRef

START = datetime(2026, 3, 27, tzinfo=UTC)
"""Two days before the clocks change in Europe."""

TABLES = [TableRef("lake", ("db",), name) for name in ("a", "b")]
OPERATIONS = [Operation.REWRITE_DATA_FILES, Operation.EXPIRE_SNAPSHOTS]
FEEDBACK = Feedback(backoff_after_failures=2, backoff_hours=5, throttle_after_zero_changes=2, throttle_min_hours=4)

schedules = st.fixed_dictionaries(
    {},
    optional={
        "windowStart": st.just("22:00"),
        "windowEnd": st.just("03:30"),
        "allowedDays": st.sampled_from(["MON,WED,SAT", "SUNDAY"]),
        "timezone": st.sampled_from(["Europe/Zurich", "America/New_York", "Asia/Kolkata"]),
    },
).flatmap(
    lambda fields: st.one_of(
        st.sampled_from([{"interval": interval} for interval in ("PT1H", "PT6H", "PT25H", "P1D", 2)]),
        st.sampled_from(
            [{"cronExpression": cron} for cron in ("0 2 * * *", "30 2 * * *", "15 */6 * * *", "5 1 * * 1")]
        ),
    ).map(lambda when: {**fields, **when})
)
conditions = st.sampled_from(
    [
        None,
        {"minIntervalMinutes": 90},
        {"minIntervalMinutes": 2000, "criticalPipeline": True, "criticalPipelineMaxDelayMinutes": 600},
    ]
)
policies = st.builds(
    lambda rewrite, expire, gate: policy(
        rewriteDataFilesSchedule=rewrite, expireSnapshotsSchedule=expire, triggerConditions=gate
    ),
    schedules,
    schedules,
    conditions,
)

Subject = tuple[TableRef, Operation]


@dataclass
class Deployment:
    """One policy's DAG on a store, with everything around it left to chance."""

    policy: Policy
    chance: Random
    store: FloeStore = field(default_factory=lambda: open_store("memory://"))
    ended: Counter[tuple[Subject, datetime]] = field(default_factory=Counter)
    decisions: list[tuple[datetime, PlanItem]] = field(default_factory=list)
    runs: int = 0

    def slots(self, operation: Operation) -> SlotSchedule:
        schedule = self.policy.schedule(operation)
        assert schedule is not None
        return SlotSchedule.of(schedule, "UTC")

    def run(self, run_after: datetime, now: datetime, *, calm: bool = False) -> None:
        """One DAG run; a calm one finds work everywhere, all gates open, and nothing goes wrong."""
        self.runs += 1
        tables = tuple(self._table(table, run_after, now, calm) for table in TABLES)
        limits = Budgets() if calm else Budgets(*self.chance.choice([(0, 0), (1, 0), (0, 1), (0, 3)]))
        made = plan(request(*tables, run_id=f"run-{self.runs}", now=now, budgets=limits, feedback=FEEDBACK))
        for item in made.items:
            if item.operation not in OPERATIONS:
                continue
            self._check_slot(item, run_after)
            self.decisions.append((run_after, item))
            if item.slot is not None:
                self._answer(item, now, calm)
            else:
                assert item.disposition in (Disposition.NOT_DUE, Disposition.NO_WORK)

    def _table(self, table: TableRef, run_after: datetime, now: datetime, calm: bool) -> TableInputs:
        base = inputs(report(table.name, works=tuple(self._work(calm) for self._operation in OPERATIONS)))
        due = {
            operation: due_state(
                self.policy.schedule(operation), self.store.consumed_slot(table, operation), run_after, now, "UTC"
            )
            for operation in OPERATIONS
        }
        governor = self.policy.model_copy(update={"trigger_conditions": None}) if calm else self.policy
        governance = inputs(base.report, governor=governor).governance
        history = dict.fromkeys(Operation, OperationHistory()) if calm else self.store.history(table)
        return TableInputs(report=base.report, governance=governance, history=history, due=due)

    def _work(self, calm: bool) -> OperationWork:
        return work(self._operation, True if calm else self.chance.choice([True, True, True, False]))

    def _check_slot(self, item: PlanItem, run_after: datetime) -> None:
        """A slot is open exactly until it is consumed or a newer one comes."""
        latest = self.slots(item.operation).latest_slot(run_after)
        consumed = self.store.consumed_slot(item.table.ref(), item.operation)
        is_open = latest is not None and (consumed is None or latest > consumed)
        assert item.slot == (latest if is_open else None)

    def _answer(self, item: PlanItem, now: datetime, calm: bool) -> None:
        outcome = self._execute(item, now, calm) if item.disposition is Disposition.RUN else decided_outcome(item)
        assert outcome is not None
        if outcome is SlotOutcome.THROTTLED:
            self._check_throttled(item, now)
        self._record(item, outcome, now)

    def _record(self, item: PlanItem, outcome: SlotOutcome, now: datetime) -> None:
        assert item.slot is not None
        assert item.policy is not None
        assert self.store.record_slot(
            ScheduleExecution(
                table=item.table,
                operation=item.operation,
                policy=item.policy,
                slot=item.slot,
                outcome=outcome,
                reason="; ".join(item.reasons),
                run_id=f"run-{self.runs}",
                recorded_at=now,
            )
        )

    def _execute(self, item: PlanItem, now: datetime, calm: bool) -> SlotOutcome:
        assert item.slot is not None
        outcomes = [SlotOutcome.EXECUTED] * 3 + [
            SlotOutcome.FAILED,
            SlotOutcome.BUSY,
            SlotOutcome.INTERRUPTED,
            SlotOutcome.UNKNOWN,
        ]
        outcome = SlotOutcome.EXECUTED if calm else self.chance.choice(outcomes)
        if outcome.consumes:
            self.ended[(item.table.ref(), item.operation), item.slot] += 1
        if outcome is not SlotOutcome.BUSY:
            self.store.save_operation(
                OperationRecord(
                    table=item.table,
                    operation=item.operation,
                    status={
                        SlotOutcome.EXECUTED: OperationStatus.SUCCESS,
                        SlotOutcome.FAILED: OperationStatus.FAILED,
                        SlotOutcome.INTERRUPTED: OperationStatus.INTERRUPTED,
                        SlotOutcome.UNKNOWN: OperationStatus.UNKNOWN,
                    }[outcome],
                    started_at=now,
                    finished_at=now,
                    result=OperationResult(changed=self.chance.random() < 0.3, message="done")
                    if outcome is SlotOutcome.EXECUTED
                    else None,
                )
            )
        return outcome

    def _check_throttled(self, item: PlanItem, now: datetime) -> None:
        """Every second due slot at most, unless the last run is too near."""
        last_run_at = self.store.history(item.table.ref())[item.operation].last_run_at
        assert last_run_at is not None
        if now >= last_run_at + timedelta(hours=FEEDBACK.throttle_min_hours):
            newest_first = self.store.slots(item.table.ref(), item.operation, limit=20)
            last_consumed = next((slot.outcome for slot in newest_first if slot.outcome.consumes), None)
            assert last_consumed is not SlotOutcome.THROTTLED


def live(deployment: Deployment, runs: int) -> datetime:
    """Runs as Airflow starts them without catchup: the newest tick that has come, else the next one."""
    chance = deployment.chance
    ticks = PolicyTicks.of(deployment.policy, "UTC")
    clock, last = START, START
    past: list[datetime] = []
    for _ in range(runs):
        newest = ticks.latest_tick(clock)
        following = ticks.next_tick(last)
        assert following is not None
        last = newest if newest is not None and newest > last else following
        clock = max(clock, last) + timedelta(minutes=chance.choice([0, 1, 20, 300]))
        deployment.run(last, clock)
        past.append(last)
        if chance.random() < 0.2:  # somebody clears an older run, or this one again
            deployment.run(chance.choice(past), clock + timedelta(minutes=1))
        if chance.random() < 0.2:
            clock += timedelta(hours=chance.randint(1, 100))
    return last


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking months of runs takes longer than reading them
)
@given(policies, st.randoms(use_true_random=False), st.integers(1, 20))
def test_no_slot_is_run_twice_none_is_lost_and_none_goes_by_without_a_reason(
    governor: Policy, chance: Random, runs: int
) -> None:
    deployment = Deployment(governor, chance)
    last = live(deployment, runs)
    assert max(deployment.ended.values(), default=0) <= 1, "a slot was run twice"
    _every_slot_has_a_reason(deployment, last)
    _what_is_open_runs_once_nothing_stands_in_its_way(deployment, last)


def _every_slot_has_a_reason(deployment: Deployment, last: datetime) -> None:
    for table in TABLES:
        for operation in OPERATIONS:
            recorded = {
                execution.slot: execution.reason for execution in deployment.store.slots(table, operation, limit=10_000)
            }
            assert all(recorded.values())
            slot = deployment.slots(operation).next_slot(START)
            while slot <= last:
                assert slot in recorded or _answered_with_a_newer_one(deployment, (table, operation), slot)
                slot = deployment.slots(operation).next_slot(slot)


def _answered_with_a_newer_one(deployment: Deployment, subject: Subject, slot: datetime) -> bool:
    """No run came between the slot and the next: the first run after it says that it answers this one too."""
    item = next(
        item
        for run_after, item in deployment.decisions
        if (item.table.ref(), item.operation) == subject and run_after >= slot
    )
    assert item.slot is not None
    assert item.slot > slot
    said = next(reason for reason in item.reasons if reason.startswith("answers every"))
    since = said.partition("from ")[2].partition(" to ")[0]
    return not since or datetime.strptime(since, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC) <= slot


def _what_is_open_runs_once_nothing_stands_in_its_way(deployment: Deployment, last: datetime) -> None:
    for operation in OPERATIONS:
        slots = deployment.slots(operation)
        now = last if slots.in_window(last) else slots.next_window(last)
        assert now is not None
        for _ in range(2):
            deployment.run(last, now, calm=True)
        for table in TABLES:
            assert deployment.store.consumed_slot(table, operation) == slots.latest_slot(last)
    assert max(deployment.ended.values(), default=0) <= 1
