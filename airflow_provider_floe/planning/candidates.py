"""Selection: whether there is a reason to run one operation on one table, and which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_floe.health.report import HealthReport, Issue, IssueType, OperationWork, Severity
from airflow_provider_floe.planning.conditions import check_conditions
from airflow_provider_floe.planning.model import Disposition, OperationHistory
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.tables import DELETE_FILE_OPERATIONS, Operation
from airflow_provider_floe.text import count_text, duration_text, number_text, time_text

ISSUE_OPERATIONS: dict[IssueType, tuple[Operation, ...]] = {
    IssueType.TOO_MANY_SMALL_FILES: (Operation.REWRITE_DATA_FILES,),
    IssueType.TOO_MANY_LARGE_FILES: (Operation.REWRITE_DATA_FILES,),
    IssueType.HIGH_FILE_COUNT: (Operation.REWRITE_DATA_FILES,),
    IssueType.TOO_MANY_DELETE_FILES: DELETE_FILE_OPERATIONS,
    IssueType.HIGH_DELETE_FILE_RATIO: DELETE_FILE_OPERATIONS,
    IssueType.TOO_MANY_SNAPSHOTS: (Operation.EXPIRE_SNAPSHOTS,),
    IssueType.OLD_SNAPSHOTS: (Operation.EXPIRE_SNAPSHOTS,),
    IssueType.TOO_MANY_MANIFESTS: (Operation.REWRITE_MANIFESTS,),
    IssueType.LARGE_MANIFEST_LIST: (Operation.REWRITE_MANIFESTS,),
}
"""Which operations an issue asks for. Issues that are missing here are reported only: no operation mends them."""

_WRITERS = tuple(operation for operation in Operation if operation is not Operation.REMOVE_ORPHAN_FILES)


@dataclass(frozen=True, slots=True)
class Candidacy:
    """Whether an operation is a candidate.

    :ivar disposition: None for a candidate, else ``NO_WORK`` or ``REFUSED``.
    :ivar reasons: for or against it, with numbers.
    """

    disposition: Disposition | None
    reasons: tuple[str, ...]


def candidacy(
    operation: Operation,
    *,
    policy: Policy,
    report: HealthReport,
    history: Mapping[Operation, OperationHistory],
    now: datetime,
    named: bool,
    orphan_interval_days: float,
    follows: Operation | None = None,
) -> Candidacy:
    """Decide whether there is a reason to run the operation.

    :param named: the run names the operation.
    :param orphan_interval_days: with no listing to tell, orphans are worth looking for this long after the last
        cleanup.
    :param follows: runs before it on the table, and may leave work that is not there yet.
    """
    work = report.work.get(operation)
    if work is not None and work.refusal is not None:
        return Candidacy(Disposition.REFUSED, (f"must not run: {work.refusal}",))
    asked = list(_asked_for(operation, policy, report, now, named))
    if work is not None and work.found is False and follows is not None:
        return Candidacy(None, (f"follows {follows}, which may leave some to do; as yet {work.summary}", *asked))
    if work is not None and work.found is False:
        return Candidacy(Disposition.NO_WORK, (work.summary, *(f"although {why}" for why in asked)))
    if work is not None and work.found:
        return Candidacy(None, (f"work found: {work.summary}", *asked))
    against: list[str] = []
    if operation is Operation.REMOVE_ORPHAN_FILES:
        worth, reasons = _orphans_by_time(history, now, orphan_interval_days)
        (asked if worth else against).extend(reasons)
    if asked:
        return Candidacy(None, (*asked, _unknown(work)))
    return Candidacy(
        Disposition.NO_WORK,
        (
            "nothing asks for it: no issue of it is WARNING or worse, no related condition is met",
            *against,
            _unknown(work),
        ),
    )


def issues_of(operation: Operation, report: HealthReport) -> tuple[Issue, ...]:
    """Issues, WARNING or worse, that ask for the operation."""
    return tuple(
        issue
        for issue in report.issues
        if issue.severity is not Severity.INFO and operation in ISSUE_OPERATIONS.get(issue.type, ())
    )


def _asked_for(operation: Operation, policy: Policy, report: HealthReport, now: datetime, named: bool) -> list[str]:
    reasons = [f"issue {issue.type} {issue.severity}: {issue.message}" for issue in issues_of(operation, report)]
    settings = policy.settings(operation)
    # Conditions in an operation's own settings speak for it whatever their metric; a policy's by their metric.
    own = settings is not None and settings.trigger_conditions is not None
    reasons += [
        f"condition met: {check.text}"
        for check in check_conditions(policy.conditions(operation), report.metrics, now)
        if check.met and (own or operation in check.operations)
    ]
    if named:
        reasons.append("named by the run")
    return reasons


def _orphans_by_time(
    history: Mapping[Operation, OperationHistory], now: datetime, interval_days: float
) -> tuple[bool, list[str]]:
    own = history.get(Operation.REMOVE_ORPHAN_FILES)
    if own is None or not own.known:
        return True, ["when orphans were last removed is unknown: no history is kept"]
    if own.last_success_at is None:
        return True, ["no successful cleanup of orphans on record"]
    since = now - own.last_success_at
    last = f"last cleanup {duration_text(since)} ago, at {time_text(own.last_success_at)}"
    reasons = []
    if since >= timedelta(days=interval_days):
        reasons.append(f"{last}; worth repeating after {number_text(interval_days)} days")
    if own.failures_since_success:
        reasons.append(f"{count_text(own.failures_since_success, 'failed or interrupted run')} since the last cleanup")
    for writer in _WRITERS:
        failed_at = history[writer].last_failure_at if writer in history else None
        if failed_at is not None and failed_at > own.last_success_at:
            reasons.append(f"{writer} failed at {time_text(failed_at)}, after the last cleanup; it may have left files")
    if reasons:
        return True, reasons
    return False, [f"{last}; worth repeating after {number_text(interval_days)} days; no failed write since"]


def _unknown(work: OperationWork | None) -> str:
    return f"how much there is to do is not known: {work.summary if work else 'it was not assessed'}"
