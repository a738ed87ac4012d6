"""Every setting of a deployment, with its default. The Airflow side fills it from the ``[floe]`` section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from airflow_provider_floe.health.report import ScanMode


class Settings(BaseModel):
    """Settings of a deployment."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    persist_health: bool = True
    """Keep health reports; when off, trends and gates that need history say "unknown"."""
    health_reports_per_table: PositiveInt = 100
    health_report_days: PositiveInt = 30
    operation_record_days: PositiveInt = 365
    emit_events: bool = True
    """Emit asset events and OpenLineage facets; log lines and metrics are written always."""
    scan_mode: ScanMode = ScanMode.SCAN
    assess_threads: PositiveInt = 4
    """Tables assessed at a time by one task."""
    orphan_listing_limit: NonNegativeInt = 100_000
    """Assess lists a table's storage for orphans while it has at most this many files; 0 never lists."""
    orphan_interval_days: PositiveFloat = 7.0
    """Without a listing, orphan cleanup is worth running this long after the last one."""
    max_tables_per_run: NonNegativeInt = 0
    max_operations_per_run: NonNegativeInt = 0
    max_bytes_per_hour: NonNegativeInt = 0
    backoff_after_failures: PositiveInt = 3
    backoff_hours: NonNegativeFloat = 6.0
    throttle_after_zero_changes: PositiveInt = 5
    throttle_min_hours: NonNegativeFloat = 6.0
    score_weights: dict[str, float] = Field(default_factory=dict)
    """Overrides of the debt score's points, by the names of ``ScoreWeights``."""
    lease_seconds: PositiveInt = 300
    """A table's lease runs out this long after its last renewal; it is renewed every third of it."""
    lease_wait_seconds: NonNegativeInt = 3600
    """How long a run waits for a table that another run maintains."""
    max_batches: PositiveInt = 200
    """Most execute tasks of one run."""
    batch_bytes: PositiveInt = 2 * 1024**3
    batch_tables: PositiveInt = 50
    max_tasks_per_table: PositiveInt = 1
    """Most execute tasks that share the file groups of one table's rewrite, one for each ``batch_bytes`` of it."""
    local_memory_limit_bytes: PositiveInt = 1024**3
    """Memory that the local engine keeps to for its buffers and DuckDB."""
    default_timezone: str = "UTC"
    """Time zone of schedules that name none."""
