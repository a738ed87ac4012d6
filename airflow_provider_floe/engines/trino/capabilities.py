"""What Trino honours, setting by setting, and how a server is asked what it can do."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from airflow_provider_floe.engines.capabilities import CatalogAccess, OperationCapability, TableFeature
from airflow_provider_floe.engines.trino import sql
from airflow_provider_floe.engines.trino.failures import QueryFailed
from airflow_provider_floe.engines.trino.session import Session
from airflow_provider_floe.errors import ConfigurationError, FloeError
from airflow_provider_floe.policies.model import SETTINGS_MODELS
from airflow_provider_floe.tables import Operation

log = logging.getLogger(__name__)

OPTIMIZE = "optimize(file_size_threshold => '1MB')"
OPTIMIZE_MANIFESTS = "optimize_manifests"
EXPIRE = "expire_snapshots(retention_threshold => '1d')"
RETAIN_LAST = "expire_snapshots(retention_threshold => '1d', retain_last => 1)"
CLEAN_METADATA = "expire_snapshots(retention_threshold => '1d', clean_expired_metadata => true)"
REMOVE_ORPHANS = "remove_orphan_files(retention_threshold => '1d')"

TARGET_SIZE = "target_max_file_size"
ANALYSIS = "collect_extended_statistics_on_write"
"""Session properties of a catalog; one that collects statistics on write also does so by ``ANALYZE``."""
_EXTENDED = "extended_statistics_enabled"
_MINIMUMS = {
    "expire_snapshots_min_retention": (Operation.EXPIRE_SNAPSHOTS, "maxSnapshotAge"),
    "remove_orphan_files_min_retention": (Operation.REMOVE_ORPHAN_FILES, "retentionPeriodInDays"),
}

_LOCAL = "use engine local"
_SPARK = "use engine spark"
_EITHER = "use engine local or spark"
_BY_ITSELF = "Trino deletes files by itself and cannot"

_REFUSED: dict[Operation, dict[str, str]] = {
    Operation.REWRITE_DATA_FILES: {
        "strategy": f"Trino only packs files, in the table's own sort order where it has one: {_EITHER}",
        "sortOrder": f"Trino sorts by the table's own sort order only: {_EITHER}",
        "zOrderColumns": f"Trino has no z-order: {_EITHER}",
        "maxFileGroupSizeBytes": f"Trino rewrites all files at once: {_EITHER}",
        "maxConcurrentFileGroupRewrites": f"Trino rewrites all files at once: {_EITHER}",
        "partialProgressEnabled": f"Trino commits a rewrite as a whole: {_EITHER}",
        "partialProgressMaxCommits": f"Trino commits a rewrite as a whole: {_EITHER}",
        "partialProgressMaxFailedCommits": f"Trino commits a rewrite as a whole: {_EITHER}",
        "rewriteJobOrder": f"Trino rewrites all files at once: {_EITHER}",
        "useStartingSequenceNumber": f"Trino decides the sequence number of the files itself: {_SPARK}",
        "deleteFileThreshold": f"Trino rewrites every file that has deletes: {_EITHER}",
        "removeDanglingDeletes": f"Trino leaves delete files that apply to nothing: {_EITHER}",
        "outputSpecId": f"Trino writes the table's current partition spec: {_EITHER}",
    },
    Operation.REWRITE_MANIFESTS: {
        "specId": f"Trino rewrites the manifests of all specs: {_EITHER}",
        "stagingLocation": f"Trino writes to the table's metadata folder: {_SPARK}",
        "sortBy": f"Trino clusters manifests by the partition fields in their order: {_EITHER}",
        "rewriteIf": f"Trino chooses the manifests itself: {_EITHER}",
    },
    Operation.EXPIRE_SNAPSHOTS: {
        "expireSnapshotId": f"Trino expires by age only: {_EITHER}",
        "quarantine": f"{_BY_ITSELF} set them aside: {_LOCAL}",
    },
    Operation.REMOVE_ORPHAN_FILES: {
        "location": f"Trino looks through the table's whole location: {_EITHER}",
        "prefixMismatchMode": f"Trino compares names of files only, so it never deletes for a prefix: {_EITHER}",
        "excludePatterns": f"{_BY_ITSELF} leave some out: {_LOCAL}",
        "quarantine": f"{_BY_ITSELF} set them aside: {_LOCAL}",
    },
}
_OLDER = "this Trino's expire_snapshots has no"
_NO_CLEANING = f"{_OLDER} clean_expired_metadata: take a newer server, or {_EITHER}"
_NO_RETAIN_LAST = f"{_OLDER} retain_last, so it keeps what the table asks for: take a newer server, or {_EITHER}"
_NO_TARGET = (
    f"this catalog has no session property {TARGET_SIZE}: set write.target-file-size-bytes on the table, or {_EITHER}"
)
_NO_ANALYSIS = (
    f"this catalog has no session property {ANALYSIS}, or {_EXTENDED} is off (iceberg.extended-statistics.enabled), so "
    f"that ANALYZE is refused: {_SPARK}"
)

_UNVERIFIED = "Trino's support of format version 3 is not verified here"
_V3 = f"{_UNVERIFIED}: {_EITHER}"
_ENCRYPTED = f"Trino has no access to encryption keys: {_SPARK}"
_GC_DISABLED = "gc.enabled=false on the table forbids deleting its files"
_WRITING = {
    TableFeature.FORMAT_V3.value: _V3,
    TableFeature.DELETION_VECTORS.value: _V3,
    TableFeature.ENCRYPTED.value: _ENCRYPTED,
}
_ANALYSING = {
    TableFeature.FORMAT_V3.value: f"{_UNVERIFIED}: {_SPARK}",
    TableFeature.DELETION_VECTORS.value: f"{_UNVERIFIED}: {_SPARK}",
    TableFeature.ENCRYPTED.value: _ENCRYPTED,
}
_DELETING = {**_WRITING, TableFeature.GC_DISABLED.value: _GC_DISABLED}
_FEATURES = {
    Operation.REWRITE_DATA_FILES: _WRITING,
    Operation.REWRITE_MANIFESTS: _WRITING,
    Operation.COMPUTE_TABLE_STATS: _ANALYSING,
    Operation.EXPIRE_SNAPSHOTS: _DELETING,
    Operation.REMOVE_ORPHAN_FILES: _DELETING,
}
_PROCEDURES = {
    Operation.REWRITE_DATA_FILES: OPTIMIZE,
    Operation.REWRITE_MANIFESTS: OPTIMIZE_MANIFESTS,
    Operation.EXPIRE_SNAPSHOTS: EXPIRE,
    Operation.REMOVE_ORPHAN_FILES: REMOVE_ORPHANS,
}
_NO_PROCEDURE = {
    Operation.REWRITE_POSITION_DELETE_FILES: "Trino has no procedure for delete files alone; its optimize applies "
    f"them, by rewriting the data: take rewrite_data_files, or {_EITHER}",
}
CALLS = (*_PROCEDURES.values(), RETAIN_LAST, CLEAN_METADATA)
"""What a server is asked whether it understands it."""


def operation_capabilities(
    understood: frozenset[str], properties: frozenset[str]
) -> dict[Operation, OperationCapability]:
    """Every setting of every operation: those not refused are honoured at any value.

    :param understood: the calls above that the server understands.
    :param properties: the session properties of its Iceberg catalogs, but :data:`ANALYSIS` only where it is allowed.
    """
    found: dict[Operation, OperationCapability] = {}
    for operation, model in SETTINGS_MODELS.items():
        wires = {field.alias or name for name, field in model.model_fields.items()}
        if operation is Operation.COMPUTE_TABLE_STATS:
            able = ANALYSIS in properties
            found[operation] = OperationCapability(
                supported=able,
                reason="" if able else _NO_ANALYSIS,
                honoured=frozenset(wires),
                refused_features=_FEATURES[operation],
            )
            continue
        if operation not in _PROCEDURES:
            found[operation] = OperationCapability(supported=False, reason=_NO_PROCEDURE[operation])
            continue
        refused = dict(_REFUSED[operation])
        if operation is Operation.REWRITE_DATA_FILES and TARGET_SIZE not in properties:
            refused["targetFileSizeBytes"] = _NO_TARGET
        if operation is Operation.EXPIRE_SNAPSHOTS and CLEAN_METADATA not in understood:
            refused["cleanExpiredMetadata"] = _NO_CLEANING
        if operation is Operation.EXPIRE_SNAPSHOTS and RETAIN_LAST not in understood:
            refused["allowBelowTableRetention"] = _NO_RETAIN_LAST
        supported = _PROCEDURES[operation] in understood
        found[operation] = OperationCapability(
            supported=supported,
            reason="" if supported else f"this Trino does not know {_PROCEDURES[operation]}: {_EITHER}",
            honoured=frozenset(wires - refused.keys()),
            refused=refused,
            refused_features=_FEATURES[operation],
        )
    return found


def understood_calls(session: Session, catalog: str) -> frozenset[str]:
    """The calls that a server understands for an Iceberg catalog.

    It is asked to explain each for a table that has no procedures: names and arguments are checked before that.
    """
    place = f"{sql.name(catalog)}.information_schema.tables"
    return frozenset(call for call in CALLS if _understands(session, f"EXPLAIN ALTER TABLE {place} EXECUTE {call}"))


def _understands(session: Session, statement: str) -> bool:
    try:
        session.rows(statement)
    except QueryFailed as error:
        return error.error_name not in ("PROCEDURE_NOT_FOUND", "INVALID_PROCEDURE_ARGUMENT")
    return True


def catalog_access(session: Session, catalogs: Mapping[str, str]) -> tuple[dict[str, CatalogAccess], frozenset[str]]:
    """How the server gets at each catalog, and the session properties that its Iceberg catalogs have.

    :param catalogs: Trino's names by the names that policies use; empty means that they are the same.
    :raises ConfigurationError: when the server has no Iceberg catalog.
    """
    rows = session.rows("SELECT catalog_name, connector_name FROM system.metadata.catalogs")
    connectors = {str(name): str(connector) for name, connector in rows}
    iceberg = sorted(name for name, connector in connectors.items() if connector == "iceberg")
    if not iceberg:
        raise ConfigurationError(f"Trino on connection {session.connection!r} has no catalog of its Iceberg connector")
    access = {}
    properties: set[str] = set()
    for name, theirs in (catalogs or {name: name for name in iceberg}).items():
        if theirs in iceberg:
            values = _session_properties(session, theirs)
            properties |= values.keys() - ({ANALYSIS} if values.get(_EXTENDED) == "false" else set())
            access[name] = CatalogAccess(minimum_seconds=_minimums(values))
        else:
            why = f"is one of connector {connectors[theirs]}" if theirs in connectors else "does not exist there"
            access[name] = CatalogAccess(
                refusal=f"floe_catalogs of connection {session.connection!r} maps {name!r} to {theirs!r}, which {why}: "
                f"name one of {', '.join(iceberg)}"
            )
    return access, frozenset(properties)


def _session_properties(session: Session, catalog: str) -> dict[str, str]:
    """The values of a catalog's session properties, as they hold for this connection."""
    prefix = f"{catalog}."
    pattern = prefix.replace("!", "!!").replace("_", "!_").replace("%", "!%") + "%"
    rows: Iterable[list[str]] = session.rows(f"SHOW SESSION LIKE {sql.text(pattern)} ESCAPE '!'")
    return {row[0].removeprefix(prefix): row[1] for row in rows}


def _minimums(properties: Mapping[str, str]) -> dict[Operation, dict[str, float]]:
    return {
        operation: {setting: sql.seconds(properties[name])}
        for name, (operation, setting) in _MINIMUMS.items()
        if name in properties
    }


def server_version(session: Session) -> str:
    """What the coordinator says of itself, for people."""
    try:
        return str(session.rows("SELECT node_version FROM system.runtime.nodes WHERE coordinator")[0][0])
    except FloeError as error:  # not every user may read the system catalog
        log.info("Trino's version is not known: %s", error)
        return "unknown"
