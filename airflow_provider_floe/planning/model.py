"""The plan, and everything that planning takes as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.health.report import (
    AssessmentFailure,
    HealthReport,
    Model,
    TableId,
    new_id,
)
from airflow_provider_floe.policies.resolution import Governance
from airflow_provider_floe.tables import Operation


class RunMode(StrEnum):
    """What started a run. Only ``scheduled`` looks at schedule and window."""

    SCHEDULED = "scheduled"
    TABLE_CONF = "table-conf"
    OPERATOR = "operator"
    ASSET = "asset"

    @property
    def looks_at_schedule(self) -> bool:
        """Whether the schedule and window gates apply."""
        return self is RunMode.SCHEDULED


class Disposition(StrEnum):
    """What planning decided for one (table, operation)."""

    RUN = "run"
    NOT_ASKED = "not asked for"
    NOT_GOVERNED = "not governed"
    SWITCHED_OFF = "switched off"
    NO_WORK = "no work"
    NOT_DUE = "not due"
    BLOCKED = "blocked"
    CUT = "cut by budget"
    NEVER_FITS = "never fits the budget"
    REFUSED = "refused"
    UNAVAILABLE = "engine not available"


class GateName(StrEnum):
    """Gates, in the order in which they are asked."""

    SCHEDULE = "schedule"
    WINDOW = "window"
    DEADLINE = "critical deadline"
    INTERVAL = "minimum interval"
    CONDITIONS = "conditions"
    BACKOFF = "backoff"
    THROTTLE = "throttle"


class GateDecision(Model):
    """One gate's answer.

    :ivar passed: None when the gate was skipped (not asked), with the reason why.
    :ivar next_eligible_at: UTC, where the gate knows it.
    :ivar met: conditions that hold, with their numbers; likewise ``unmet``.
    :ivar forced: the critical deadline is past, so that interval and conditions were not asked.
    """

    gate: GateName
    passed: bool | None
    reason: str
    next_eligible_at: datetime | None = None
    met: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    forced: bool = False


class ScoreTerm(Model):
    """One summand of a debt score."""

    name: str
    points: float
    reason: str


class Estimate(Model):
    """What an operation is expected to read and write."""

    files_in: int = 0
    files_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    known: bool = True


class PlanItem(Model):
    """The decision for one (table, operation).

    :ivar reasons: why it is a candidate, or why it is not; each with its numbers.
    :ivar settings: the governing policy's settings object, wire format, frozen at plan time.
    :ivar slot: the due slot this decision answers, UTC; None outside scheduled runs.
    :ivar score: sum of ``score_terms`` clamped to 0..1000; rank is over all tables of the run, 1 = first.
    :ivar follows: runs only because this operation runs before it on the table, and may find nothing to do then.
    :ivar timeout_hours: the schedule's timeout for this operation.
    :ivar table_uuid: of the table assessed; an execute task refuses a table of another one.
    """

    id: str = Field(default_factory=new_id)
    table: TableId
    operation: Operation
    disposition: Disposition
    reasons: tuple[str, ...]
    policy: str | None = None
    policy_revision: str | None = None
    governance: str = ""
    engine: str | None = None
    engine_reason: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    ignored_settings: tuple[str, ...] = ()
    gates: tuple[GateDecision, ...] = ()
    score_terms: tuple[ScoreTerm, ...] = ()
    score: float = 0.0
    rank: int | None = None
    estimate: Estimate = Estimate()
    follows: Operation | None = None
    table_uuid: str | None = None
    snapshot_id: int | None = None
    slot: datetime | None = None
    schedule_priority: int = 0
    timeout_hours: int | None = None


class BudgetUse(Model):
    """One budget: its limit (0 = unlimited), what was left before, what this plan took."""

    name: str
    limit: int
    available: int | None
    used: int


class Plan(Model):
    """One plan: every decision of one run.

    :ivar batches: ids of RUN items, one tuple per execute task; all items of a table stand in one batch, in run order.
    :ivar helpers: items whose file groups more tasks take part in, one entry per such task; these tasks come after
        those of ``batches``.
    """

    id: str = Field(default_factory=new_id)
    assessment_id: str | None = None
    run_id: str
    mode: RunMode
    created_at: datetime
    force: bool = False
    dry_run: bool = False
    items: tuple[PlanItem, ...] = ()
    failures: tuple[AssessmentFailure, ...] = ()
    budgets: tuple[BudgetUse, ...] = ()
    batches: tuple[tuple[str, ...], ...] = ()
    helpers: tuple[str, ...] = ()

    def item(self, item_id: str) -> PlanItem:
        """The item of that id.

        :raises KeyError: when the plan has none.
        """
        for item in self.items:
            if item.id == item_id:
                return item
        raise KeyError(item_id)

    @property
    def to_run(self) -> tuple[PlanItem, ...]:
        """Items that are to be executed, by rank."""
        chosen = [item for item in self.items if item.disposition is Disposition.RUN]
        return tuple(sorted(chosen, key=lambda item: (item.rank or 0, list(Operation).index(item.operation))))


# --- arguments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OperationHistory:
    """What the store knows of one operation on one table; counts are over the runs kept.

    :ivar known: False when history is not kept; gates that need it then say "unknown".
    :ivar last_run_at: end of the last run that executed, whatever its outcome, UTC.
    :ivar failures_since_success: failed or interrupted writes since the last success.
    :ivar last_slot_throttled: the newest slot that was consumed was consumed by the throttle; slots still open do not
        count.
    """

    known: bool = True
    runs: int = 0
    failures: int = 0
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    consecutive_failures: int = 0
    consecutive_zero_changes: int = 0
    failures_since_success: int = 0
    last_slot_throttled: bool = False


@dataclass(frozen=True, slots=True)
class DueState:
    """The schedule of one (table, operation) at the time of the run.

    :ivar scheduled: False: no schedule or a disabled one, so on demand only.
    :ivar latest_slot: newest slot <= the run's ``run_after``, UTC; None when there is none yet.
    :ivar consumed_slot: slot of the last schedule execution that consumed one, UTC.
    :ivar first_open_slot: first slot after ``consumed_slot``, UTC; before ``latest_slot`` when runs were missed or left
        slots open.
    :ivar next_slot: first slot after ``run_after``, UTC.
    :ivar in_window: whether now lies inside the schedule's window and days.
    :ivar next_window_at: when the window opens next, UTC; None when there is no window.
    """

    scheduled: bool
    latest_slot: datetime | None = None
    consumed_slot: datetime | None = None
    first_open_slot: datetime | None = None
    next_slot: datetime | None = None
    in_window: bool = True
    next_window_at: datetime | None = None

    @property
    def due(self) -> bool:
        """Whether the latest slot is newer than the one that was consumed last."""
        return (
            self.scheduled
            and self.latest_slot is not None
            and (self.consumed_slot is None or self.latest_slot > self.consumed_slot)
        )


@dataclass(frozen=True, slots=True)
class TableInputs:
    """All that planning knows of one table."""

    report: HealthReport
    governance: Mapping[Operation, Governance]
    history: Mapping[Operation, OperationHistory]
    due: Mapping[Operation, DueState]


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """Points of the debt score; the defaults are the original's."""

    critical: float = 100.0
    warning: float = 50.0
    info: float = 10.0
    per_day_since_newest_snapshot: float = 0.5
    failure_percent: float = 1.0
    per_consecutive_failure: float = 20.0
    maximum: float = 1000.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """Backoff after failures and throttle after runs without change; the defaults are the original's."""

    backoff_after_failures: int = 3
    backoff_hours: float = 6.0
    throttle_after_zero_changes: int = 5
    throttle_min_hours: float = 6.0


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a run may spend; 0 = unlimited.

    :ivar bytes_left_this_hour: what other plans of the last hour left of ``max_bytes_per_hour``; None = unlimited.
    """

    max_tables_per_run: int = 0
    max_operations_per_run: int = 0
    max_bytes_per_hour: int = 0
    bytes_left_this_hour: int | None = None


@dataclass(frozen=True, slots=True)
class Batching:
    """How items are spread over execute tasks.

    :ivar max_batches: never more tasks than this, whatever the number of tables.
    :ivar target_bytes: small tables are put together up to this many input bytes.
    :ivar max_tasks_per_table: most tasks that share the file groups of one table, of ``target_bytes`` each.
    """

    max_batches: int = 200
    target_bytes: int = 2 * 1024**3
    max_tables: int = 50
    max_tasks_per_table: int = 1


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Arguments of :func:`airflow_provider_floe.planning.planner.plan`.

    :ivar operations: only these; None = all governed ones. Naming an operation makes it a candidate.
    :ivar force: skips all gates, never safety.
    :ivar capabilities: by engine name, as probed; a missing engine is unavailable, with the reason in ``unavailable``.
    :ivar orphan_interval_days: with no listing to tell, orphans are worth looking for this long after the last cleanup.
    """

    run_id: str
    mode: RunMode
    now: datetime
    tables: tuple[TableInputs, ...]
    capabilities: Mapping[str, Capabilities]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[AssessmentFailure, ...] = ()
    operations: frozenset[Operation] | None = None
    force: bool = False
    dry_run: bool = False
    budgets: Budgets = Budgets()
    weights: ScoreWeights = ScoreWeights()
    feedback: Feedback = Feedback()
    batching: Batching = Batching()
    orphan_interval_days: float = 7.0
    assessment_id: str | None = None
