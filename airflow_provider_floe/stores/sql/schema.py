"""Tables of the Floe store, at the newest schema version.

Documents are JSON text, beside the columns that queries need. ``table_key`` is the dotted table reference.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from airflow_provider_floe.stores.sql.expressions import UtcMicros

metadata = MetaData()

_SERIAL = BigInteger().with_variant(Integer(), "sqlite")


def _serial() -> Column[int]:
    return Column("seq", _SERIAL, primary_key=True, autoincrement=True)


schema_versions = Table(
    "floe_schema_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", UtcMicros, nullable=False),
)

counters = Table(
    "floe_counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

policies = Table(
    "floe_policies",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("document", Text, nullable=False),
)

health_reports = Table(
    "floe_health_reports",
    metadata,
    _serial(),
    Column("id", String(64), nullable=False, unique=True),
    Column("table_key", Text, nullable=False),
    Column("assessed_at", UtcMicros, nullable=False, index=True),
    Column("document", Text, nullable=False),
    Index("ix_floe_health_reports_table", "table_key", "assessed_at"),
)

assessments = Table(
    "floe_assessments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("saved_at", UtcMicros, nullable=False, index=True),
    Column("document", Text, nullable=False),
)

plans = Table(
    "floe_plans",
    metadata,
    _serial(),
    Column("id", String(64), nullable=False, unique=True),
    Column("created_at", UtcMicros, nullable=False, index=True),
    Column("document", Text, nullable=False),
)

reservations = Table(
    "floe_reservations",
    metadata,
    Column("item_id", String(64), primary_key=True),
    Column("plan_id", String(64), ForeignKey(plans.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("reserved_at", UtcMicros, nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
)

operations = Table(
    "floe_operations",
    metadata,
    _serial(),
    Column("id", String(64), nullable=False, unique=True),
    Column("table_key", Text, nullable=False),
    Column("operation", String(64), nullable=False),
    Column("status", String(32), nullable=False, index=True),
    Column("plan_id", String(64), index=True),
    Column("started_at", UtcMicros, nullable=False, index=True),
    Column("finished_at", UtcMicros),
    Column("changed", Boolean),
    Column("document", Text, nullable=False),
    Index("ix_floe_operations_table", "table_key", "operation", "started_at"),
)

slots = Table(
    "floe_slots",
    metadata,
    Column("table_key", Text, nullable=False),
    Column("operation", String(64), nullable=False),
    Column("slot", UtcMicros, nullable=False),
    Column("consumed", Boolean, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("document", Text, nullable=False),
    PrimaryKeyConstraint("table_key", "operation", "slot"),
)

leases = Table(
    "floe_leases",
    metadata,
    Column("table_key", Text, primary_key=True),
    Column("token", String(64), nullable=False),
    Column("holder", Text, nullable=False),
    Column("expires_at", UtcMicros, nullable=False),
)

journal = Table(
    "floe_journal",
    metadata,
    _serial(),
    Column("operation_id", String(64), ForeignKey(operations.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("path", Text, nullable=False),
    # digest of the three above: a path may be longer than an index entry may be. Unique, because only then does
    # PostgreSQL look files up by index before it has statistics, which it gets after a large operation has ended
    Column("file_key", String(32), nullable=False, unique=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("quarantined_to", Text),
    Column("recorded_at", UtcMicros, nullable=False),
    Column("done_at", UtcMicros),
    Column("restored_at", UtcMicros),
)

file_groups = Table(
    "floe_file_groups",
    metadata,
    Column("operation_id", String(64), ForeignKey(operations.c.id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("snapshot_id", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("worker", String(64)),
    Column("expires_at", UtcMicros),
    Column("written", Text),
    PrimaryKeyConstraint("operation_id", "number"),
)
