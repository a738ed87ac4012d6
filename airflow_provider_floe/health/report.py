"""The health report: what one table looks like at one snapshot. Persisted, so every part is an immutable model."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_floe.tables import Operation, TableRef


class Model(BaseModel):
    """Base of everything that is persisted beside policies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanMode(StrEnum):
    """How deep an assessment reads."""

    METADATA = "metadata"
    """Metadata file and manifest list only."""
    SCAN = "scan"
    """All manifests."""
    SAMPLE = "sample"
    """Some manifests, at most about 10,000 entries; totals are scaled up."""


class Severity(StrEnum):
    """How bad an issue is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class IssueType(StrEnum):
    """What can be wrong with a table."""

    TOO_MANY_SMALL_FILES = "TOO_MANY_SMALL_FILES"
    TOO_MANY_LARGE_FILES = "TOO_MANY_LARGE_FILES"
    HIGH_FILE_COUNT = "HIGH_FILE_COUNT"
    TOO_MANY_SNAPSHOTS = "TOO_MANY_SNAPSHOTS"
    OLD_SNAPSHOTS = "OLD_SNAPSHOTS"
    TOO_MANY_DELETE_FILES = "TOO_MANY_DELETE_FILES"
    HIGH_DELETE_FILE_RATIO = "HIGH_DELETE_FILE_RATIO"
    TOO_MANY_MANIFESTS = "TOO_MANY_MANIFESTS"
    LARGE_MANIFEST_LIST = "LARGE_MANIFEST_LIST"
    TOO_MANY_PARTITIONS = "TOO_MANY_PARTITIONS"
    PARTITION_SKEW = "PARTITION_SKEW"
    TABLE_EMPTY = "TABLE_EMPTY"
    STALE_METADATA = "STALE_METADATA"


class Source(StrEnum):
    """Where a metric comes from, so that a reader knows how exact it is."""

    SUMMARY = "snapshot summary"
    METADATA = "metadata file"
    MANIFEST_LIST = "manifest list"
    MANIFESTS = "manifests"
    SAMPLE = "sample of manifests"


class TableMetrics(Model):
    """Metrics of one table. None means that the scan mode could not know it.

    :ivar file_size_histogram: number of data files by floor(log2(bytes)).
    :ivar partition_skew: largest number of data files in a partition divided by the mean.
    :ivar sources: for each metric that is known, where it comes from.
    :ivar notes: what was found wrong or left out while reading, one sentence each.
    """

    snapshot_count: int = 0
    oldest_snapshot_at: datetime | None = None
    newest_snapshot_at: datetime | None = None
    data_file_count: int | None = None
    total_data_size_bytes: int | None = None
    record_count: int | None = None
    min_file_size_bytes: int | None = None
    max_file_size_bytes: int | None = None
    avg_file_size_bytes: float | None = None
    small_file_count: int | None = None
    small_file_percentage: float | None = None
    large_file_count: int | None = None
    large_file_percentage: float | None = None
    file_size_histogram: dict[int, int] | None = None
    delete_file_count: int | None = None
    position_delete_file_count: int | None = None
    equality_delete_file_count: int | None = None
    deletion_vector_count: int | None = None
    delete_file_ratio: float | None = None
    partition_count: int | None = None
    partition_skew: float | None = None
    manifest_count: int = 0
    delete_manifest_count: int = 0
    total_manifest_size_bytes: int = 0
    sources: dict[str, Source] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Issue(Model):
    """A metric that crossed a threshold.

    :ivar value: the metric, in the unit that the message names.
    :ivar threshold: the threshold crossed, in the same unit; None where the issue has none (TABLE_EMPTY).
    """

    type: IssueType
    severity: Severity
    message: str
    value: float | None = None
    threshold: float | None = None


class TableFacts(Model):
    """What decisions need to know of a table beside its metrics.

    :ivar properties: those under ``floe.``, ``gc.``, ``history.``, ``write.``, ``commit.``, ``encryption.``.
    :ivar features: what the table uses, as values of ``engines.capabilities.TableFeature``.
    :ivar location: root of the table.
    """

    uuid: str
    location: str
    metadata_location: str
    format_version: int
    snapshot_id: int | None = None
    properties: dict[str, str] = Field(default_factory=dict)
    features: tuple[str, ...] = ()


class OperationWork(Model):
    """What an operation would find to do with the governing policy's settings.

    :ivar found: True: there is work; False: running it would change nothing; None: not known without running it.
    :ivar summary: one sentence with the numbers, for people.
    :ivar refusal: why the operation must not run at all (``gc.enabled=false`` ...); None when it may.
    """

    operation: Operation
    found: bool | None
    summary: str
    files_in: int = 0
    files_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    delete_files: int = 0
    snapshots: int = 0
    manifests_in: int = 0
    manifests_out: int = 0
    refusal: str | None = None


class TableId(Model):
    """A table reference as persisted."""

    catalog: str
    namespace: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, table: TableRef) -> TableId:
        """From a reference."""
        return cls(catalog=table.catalog, namespace=table.namespace, name=table.name)

    def ref(self) -> TableRef:
        """As a reference."""
        return TableRef(self.catalog, self.namespace, self.name)


def new_id() -> str:
    """A random identifier for a stored document."""
    return uuid4().hex


class HealthReport(Model):
    """Health of one table at one snapshot.

    :ivar assessed_at: UTC.
    :ivar work: by operation, for the operations that a policy governs.
    """

    id: str = Field(default_factory=new_id)
    table: TableId
    assessed_at: datetime
    scan_mode: ScanMode
    facts: TableFacts
    metrics: TableMetrics
    issues: tuple[Issue, ...] = ()
    work: dict[Operation, OperationWork] = Field(default_factory=dict)


class FailureKind(StrEnum):
    """Why a table could not be assessed."""

    VANISHED = "vanished"
    UNREADABLE = "unreadable"
    CATALOG = "catalog unavailable"
    NO_POLICY = "no policy"


class AssessmentFailure(Model):
    """A table, or a whole catalog, that could not be assessed; it never stops the others.

    :ivar table: None when the catalog as a whole failed.
    """

    catalog: str
    table: TableId | None = None
    kind: FailureKind
    message: str

    @property
    def subject(self) -> str:
        """What failed, by name."""
        return str(self.table.ref()) if self.table else f"catalog {self.catalog}"


class Assessment(Model):
    """What one assess task found, handed to the plan task through the store.

    :ivar policies: name -> revision of every policy that governed something.
    :ivar context: free for the use cases (run mode, requested operations ...), JSON only.
    """

    id: str = Field(default_factory=new_id)
    created_at: datetime
    reports: tuple[HealthReport, ...] = ()
    failures: tuple[AssessmentFailure, ...] = ()
    policies: dict[str, str] = Field(default_factory=dict)
    context: dict[str, Any] = Field(default_factory=dict)
