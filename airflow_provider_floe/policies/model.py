"""The policy document, in the wire format of the original Floe (camelCase) plus the fields that this project adds.

Every model refuses unknown keys, accepts snake_case beside camelCase, and is immutable.
"""

from __future__ import annotations

import hashlib
import json
from datetime import time, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.tables import Operation

DAY_NAMES = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")

_ISO_DURATION: TypeAdapter[timedelta] = TypeAdapter(timedelta)


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, str) and value.upper().startswith("P"):
        found = _ISO_DURATION.validate_python(value.upper())
    else:
        raise ValueError(f"{value!r} is not an ISO-8601 duration such as P7D or PT6H")
    if found <= timedelta(0):
        raise ValueError(f"{value!r} must be longer than zero")
    return found


def _interval(value: Any) -> timedelta:
    if isinstance(value, int) and not isinstance(value, bool):
        if value <= 0:
            raise ValueError(f"{value!r} must be at least one day")
        if value > timedelta.max.days:
            raise ValueError(f"{value!r} days are too long")
        return timedelta(days=value)
    return _duration(value)


def _time_of_day(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, int) and not isinstance(
        value, bool
    ):  # YAML 1.1 reads an unquoted 22:30 as the sexagesimal number 1350
        value = f"{value // 60:02d}:{value % 60:02d}"
    hours, _, minutes = str(value).partition(":")
    if not (hours.isdigit() and minutes.isdigit() and len(minutes) == 2 and int(hours) < 24 and int(minutes) < 60):
        raise ValueError(f"{value!r} is not a time of day as HH:mm")
    return time(int(hours), int(minutes))


def _iso(value: timedelta) -> str:
    return _ISO_DURATION.dump_python(value, mode="json")  # type: ignore[no-any-return]


_DURATION_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": "^[Pp]",
    "description": "ISO-8601 duration, for example P7D or PT6H",
    "examples": ["P7D", "PT6H"],
}

Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(_iso, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA, mode="validation"),
]
Interval = Annotated[
    timedelta,
    BeforeValidator(_interval),
    PlainSerializer(_iso, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _DURATION_SCHEMA]}, mode="validation"),
]
TimeOfDay = Annotated[
    time,
    BeforeValidator(_time_of_day),
    PlainSerializer(lambda value: value.strftime("%H:%M"), return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9]$", "examples": ["22:30"]},
                {"type": "integer", "minimum": 0, "maximum": 1439, "description": "22:30 without quotes, in YAML 1.1"},
            ]
        },
        mode="validation",
    ),
]


class Document(BaseModel):
    """Base of everything that stands in a policy document."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The document as it is written: camelCase keys, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class EngineName(StrEnum):
    """What carries out an operation; other registered engines are accepted by name too."""

    LOCAL = "local"
    SPARK = "spark"
    TRINO = "trino"
    AUTO = "auto"


class TriggerConditions(Document):
    """When a chosen operation may run. All thresholds are compared with ``>=``."""

    small_file_percentage_above: NonNegativeFloat | None = None
    """Share of small data files, in percent."""
    small_file_count_above: NonNegativeInt | None = None
    total_file_size_above_bytes: NonNegativeInt | None = None
    delete_file_count_above: NonNegativeInt | None = None
    delete_file_ratio_above: NonNegativeFloat | None = None
    """Delete files divided by data files."""
    snapshot_count_above: NonNegativeInt | None = None
    snapshot_age_above_days: NonNegativeInt | None = None
    """Age of the oldest snapshot, in days."""
    partition_count_above: NonNegativeInt | None = None
    partition_skew_above: NonNegativeFloat | None = None
    """Largest number of files in a partition divided by the mean."""
    manifest_size_above_bytes: NonNegativeInt | None = None
    min_interval_minutes: NonNegativeInt | None = None
    """Least time between two runs of an operation on a table, in minutes."""
    per_operation_min_interval_minutes: dict[Operation, NonNegativeInt] = Field(default_factory=dict)
    critical_pipeline: bool = False
    critical_pipeline_max_delay_minutes: PositiveInt | None = None
    """With ``criticalPipeline``: after this long without a run, interval and conditions no longer block."""
    trigger_logic: Literal["OR", "AND"] = "OR"

    @model_validator(mode="before")
    @classmethod
    def _operation_names(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in ("perOperationMinIntervalMinutes", "per_operation_min_interval_minutes"):
                if isinstance(data.get(key), dict):
                    try:
                        named = {Operation.parse(str(name)): minutes for name, minutes in data[key].items()}
                    except ConfigurationError as error:
                        raise ValueError(str(error)) from None
                    data = {**data, key: named}
        return data


class HealthThresholds(Document):
    """From which value on a metric is an issue, and of which severity."""

    small_file_size_bytes: PositiveInt = 100 * 1024**2
    """Data files below this size are small."""
    small_file_percent_warning: NonNegativeFloat = 20
    small_file_percent_critical: NonNegativeFloat = 50
    large_file_size_bytes: PositiveInt = 1024**3
    """Data files above this size are large."""
    large_file_percent_warning: NonNegativeFloat = 20
    large_file_percent_critical: NonNegativeFloat = 50
    file_count_warning: NonNegativeInt = 10_000
    file_count_critical: NonNegativeInt = 50_000
    snapshot_count_warning: NonNegativeInt = 100
    snapshot_count_critical: NonNegativeInt = 500
    snapshot_age_warning_days: NonNegativeInt = 7
    snapshot_age_critical_days: NonNegativeInt = 30
    delete_file_count_warning: NonNegativeInt = 100
    delete_file_count_critical: NonNegativeInt = 500
    delete_file_ratio_warning: NonNegativeFloat = 0.10
    delete_file_ratio_critical: NonNegativeFloat = 0.25
    manifest_count_warning: NonNegativeInt = 100
    manifest_count_critical: NonNegativeInt = 500
    manifest_size_warning_bytes: NonNegativeInt = 100 * 1024**2
    manifest_size_critical_bytes: NonNegativeInt = 500 * 1024**2
    partition_count_warning: NonNegativeInt = 5_000
    partition_count_critical: NonNegativeInt = 10_000
    partition_skew_warning: NonNegativeFloat = 3
    partition_skew_critical: NonNegativeFloat = 10
    stale_metadata_warning_days: NonNegativeInt = 7
    stale_metadata_critical_days: NonNegativeInt = 30

    @model_validator(mode="after")
    def _warning_before_critical(self) -> Self:
        for name in type(self).model_fields:
            if "_warning" in name:
                critical = name.replace("_warning", "_critical")
                if getattr(self, name) > getattr(self, critical):
                    raise ValueError(
                        f"{to_camel(name)} ({getattr(self, name)}) must not be above "
                        f"{to_camel(critical)} ({getattr(self, critical)})"
                    )
        return self


class OperationSettings(Document):
    """What every operation's settings object may hold."""

    enabled: bool = True
    """False switches the operation off for the tables that this policy governs."""
    engine: str | None = None
    """Overrides the policy's engine for this operation."""
    trigger_conditions: TriggerConditions | None = None
    """Replaces the policy's conditions for this operation."""


class RewriteDataFiles(OperationSettings):
    """Settings of ``rewrite_data_files``."""

    strategy: Literal["BINPACK", "SORT", "ZORDER"] = "BINPACK"
    sort_order: list[str] = Field(default_factory=list)
    """Terms such as ``"ts DESC NULLS LAST"``; empty with SORT means the table's own sort order."""
    z_order_columns: list[str] = Field(default_factory=list)
    target_file_size_bytes: PositiveInt | None = None
    """Default: the table's ``write.target-file-size-bytes``, else 512 MiB."""
    max_file_group_size_bytes: PositiveInt = 100 * 1024**3
    max_concurrent_file_group_rewrites: PositiveInt = 5
    partial_progress_enabled: bool = False
    partial_progress_max_commits: PositiveInt = 10
    partial_progress_max_failed_commits: NonNegativeInt | None = None
    filter: str | None = None
    """An Iceberg expression or SQL predicate; only files that may hold matching rows are rewritten."""
    rewrite_job_order: Literal["NONE", "BYTES_ASC", "BYTES_DESC", "FILES_ASC", "FILES_DESC"] = "NONE"
    use_starting_sequence_number: bool = True
    delete_file_threshold: PositiveInt = 1
    """Delete files that must reach a data file before it is rewritten to apply them."""
    remove_dangling_deletes: bool = False
    output_spec_id: NonNegativeInt | None = None
    """Partition spec of the files written; default: the table's current one (engine local: the one that rows have)."""

    @model_validator(mode="after")
    def _columns_fit_strategy(self) -> Self:
        if self.strategy == "ZORDER" and not self.z_order_columns:
            raise ValueError("strategy ZORDER needs zOrderColumns")
        if self.z_order_columns and self.strategy != "ZORDER":
            raise ValueError(f"zOrderColumns needs strategy ZORDER, not {self.strategy}")
        if self.sort_order and self.strategy != "SORT":
            raise ValueError(f"sortOrder needs strategy SORT, not {self.strategy}")
        return self


class RewritePositionDeleteFiles(OperationSettings):
    """Settings of ``rewrite_position_delete_files``: position delete files and deletion vectors are compacted without
    rewriting data, and what they say of data files that are gone is dropped."""

    target_file_size_bytes: PositiveInt | None = None
    """Default: the table's ``write.delete.target-file-size-bytes``, else 64 MiB."""
    min_input_files: Annotated[int, Field(ge=2)] = 5
    """Small delete files of one partition that are worth making one, or so many fewer; dangling ones always go."""
    max_file_group_size_bytes: PositiveInt = 100 * 1024**3


class DeletionSafety(OperationSettings):
    """Limits of an operation that deletes files. A run that would exceed one halts before it deletes anything."""

    max_delete_files: PositiveInt | None = None
    max_delete_bytes: PositiveInt | None = None
    max_delete_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest share of the table's files that one run may delete, 0 to 1."""
    quarantine: Duration | None = None
    """Move files aside and keep them restorable for this long instead of deleting them at once."""


class ExpireSnapshots(DeletionSafety):
    """Settings of ``expire_snapshots``."""

    retain_last: PositiveInt = 5
    max_snapshot_age: Duration = timedelta(days=7)
    clean_expired_metadata: bool = False
    expire_snapshot_id: int | None = None
    allow_below_table_retention: bool = False
    """Let this policy keep less than the table's own ``history.expire.*`` properties ask for."""


class OrphanCleanup(DeletionSafety):
    """Settings of ``remove_orphan_files``."""

    retention_period_in_days: PositiveInt = 3
    location: str | None = None
    """Default: the table's root."""
    prefix_mismatch_mode: Literal["ERROR", "IGNORE", "DELETE"] = "ERROR"
    equal_schemes: dict[str, str] = Field(default_factory=dict)
    equal_authorities: dict[str, str] = Field(default_factory=dict)
    exclude_patterns: list[str] = Field(default_factory=list)
    """Globs over the path relative to the table's location; matching files are never removed."""


class PartitionSummary(Document):
    """Bounds of one partition field in ``rewriteIf``."""

    contains_null: bool | None = None
    contains_nan: bool | None = None
    lower_bound: str | None = None
    upper_bound: str | None = None


class RewriteIf(Document):
    """Which manifests to rewrite: those whose entry in the manifest list equals every value given."""

    path: str | None = None
    length: NonNegativeInt | None = None
    spec_id: NonNegativeInt | None = None
    content: Literal["DATA", "DELETES"] | None = None
    sequence_number: NonNegativeInt | None = None
    min_sequence_number: NonNegativeInt | None = None
    snapshot_id: int | None = None
    added_files_count: NonNegativeInt | None = None
    existing_files_count: NonNegativeInt | None = None
    deleted_files_count: NonNegativeInt | None = None
    added_rows_count: NonNegativeInt | None = None
    existing_rows_count: NonNegativeInt | None = None
    deleted_rows_count: NonNegativeInt | None = None
    first_row_id: NonNegativeInt | None = None
    key_metadata: str | None = None
    partition_summaries: list[PartitionSummary] | None = None


class RewriteManifests(OperationSettings):
    """Settings of ``rewrite_manifests``."""

    spec_id: NonNegativeInt | None = None
    staging_location: str | None = None
    sort_by: list[str] = Field(default_factory=list)
    rewrite_if: RewriteIf | None = None


class ComputeTableStats(OperationSettings):
    """Settings of ``compute_table_stats``: the numbers of distinct values that engines plan their joins by."""

    columns: list[str] = Field(default_factory=list)
    """Top-level columns; default: all of a primitive type."""
    min_changed_share: NonNegativeFloat = 0.1
    """Rows written or deleted since the newest statistics, divided by the rows there were, from which on they are
    computed anew; 0: whenever the current snapshot has none."""


class Schedule(Document):
    """When an operation runs."""

    cron_expression: str | None = None
    """5 fields: Unix; 6 or 7: Quartz, seconds first."""
    interval: Interval | None = None
    """Days as an integer, or an ISO-8601 duration; wins over ``cronExpression``."""
    window_start: TimeOfDay | None = None
    window_end: TimeOfDay | None = None
    """Before ``windowStart`` means that the window crosses midnight."""
    allowed_days: str | None = None
    """Comma list of day names, for example ``"MONDAY,TUESDAY"`` or ``"MON,TUE"``."""
    timezone: str | None = None
    """IANA name; default: Airflow's ``default_timezone``."""
    timeout: PositiveInt | None = None
    """Hours after which a run of the operation is cancelled."""
    priority: int = 0
    """Breaks ties in rank; higher first."""
    enabled: bool = True


class Policy(Document):
    """Which tables, which operations with which settings, when, under which conditions, on which engine."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
    description: str = ""
    table_pattern: Annotated[str, Field(min_length=1, max_length=256)]
    enabled: bool = True
    priority: int = 0
    """Higher wins; effective priority is ``priority * 1000 + specificity of the pattern``."""
    tags: dict[str, str] = Field(default_factory=dict)
    engine: str = EngineName.AUTO
    on_unsupported_setting: Literal["refuse", "ignore"] = "refuse"
    rewrite_data_files: RewriteDataFiles | None = None
    rewrite_data_files_schedule: Schedule | None = None
    expire_snapshots: ExpireSnapshots | None = None
    expire_snapshots_schedule: Schedule | None = None
    orphan_cleanup: OrphanCleanup | None = None
    orphan_cleanup_schedule: Schedule | None = None
    rewrite_position_delete_files: RewritePositionDeleteFiles | None = None
    rewrite_position_delete_files_schedule: Schedule | None = None
    rewrite_manifests: RewriteManifests | None = None
    rewrite_manifests_schedule: Schedule | None = None
    compute_table_stats: ComputeTableStats | None = None
    compute_table_stats_schedule: Schedule | None = None
    health_thresholds: HealthThresholds = Field(default_factory=HealthThresholds)
    trigger_conditions: TriggerConditions | None = None

    def settings(self, operation: Operation) -> OperationSettings | None:
        """The operation's settings object; None means that this policy does not govern it."""
        found: OperationSettings | None = getattr(self, _FIELDS[operation])
        return found

    def schedule(self, operation: Operation) -> Schedule | None:
        """The operation's schedule; None means on demand only."""
        found: Schedule | None = getattr(self, f"{_FIELDS[operation]}_schedule")
        return found

    def conditions(self, operation: Operation) -> TriggerConditions | None:
        """The operation's own conditions, else the policy's."""
        settings = self.settings(operation)
        own = settings.trigger_conditions if settings else None
        return own if own is not None else self.trigger_conditions

    def engine_for(self, operation: Operation) -> str:
        """The operation's own engine, else the policy's."""
        settings = self.settings(operation)
        return (settings.engine if settings else None) or self.engine

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations that have a settings object, in run order."""
        return tuple(operation for operation in Operation if self.settings(operation) is not None)

    @property
    def revision(self) -> str:
        """A digest of the document: equal documents have equal revisions in every process."""
        text = json.dumps(self.wire(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_FIELDS = {
    Operation.REWRITE_DATA_FILES: "rewrite_data_files",
    Operation.EXPIRE_SNAPSHOTS: "expire_snapshots",
    Operation.REMOVE_ORPHAN_FILES: "orphan_cleanup",
    Operation.REWRITE_POSITION_DELETE_FILES: "rewrite_position_delete_files",
    Operation.REWRITE_MANIFESTS: "rewrite_manifests",
    Operation.COMPUTE_TABLE_STATS: "compute_table_stats",
}

SETTINGS_MODELS: dict[Operation, type[OperationSettings]] = {
    Operation.REWRITE_DATA_FILES: RewriteDataFiles,
    Operation.EXPIRE_SNAPSHOTS: ExpireSnapshots,
    Operation.REMOVE_ORPHAN_FILES: OrphanCleanup,
    Operation.REWRITE_POSITION_DELETE_FILES: RewritePositionDeleteFiles,
    Operation.REWRITE_MANIFESTS: RewriteManifests,
    Operation.COMPUTE_TABLE_STATS: ComputeTableStats,
}
