"""What Airflow asks a provider about itself. Loaded in every Airflow process: imports nothing."""

from __future__ import annotations

from typing import Any

PACKAGE = "airflow_provider_floe"
FIRST_VERSION = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, valid against Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-floe",
        "name": "Floe",
        "description": "Policy-driven maintenance of Apache Iceberg tables.",
        "integrations": [
            {
                "integration-name": "Floe",
                "external-doc-url": "https://iceberg.apache.org/docs/latest/maintenance/",
                "tags": ["software"],
            }
        ],
        "hooks": [{"integration-name": "Floe", "python-modules": [f"{PACKAGE}.hooks.floe"]}],
        "operators": [
            {
                "integration-name": "Floe",
                "python-modules": [
                    f"{PACKAGE}.operators.{module}"
                    for module in ("assess", "plan", "execute", "verdict", "maintenance")
                ],
            }
        ],
        "connection-types": [
            {
                "connection-type": "floe",
                "hook-class-name": f"{PACKAGE}.hooks.floe.FloeHook",
                "hook-name": "Iceberg catalog (Floe)",
                "ui-field-behaviour": _ui_field_behaviour(),
                "conn-fields": _connection_fields(),
            }
        ],
        "extra-links": [f"{PACKAGE}.links.FloeRecordLink", f"{PACKAGE}.links.FloeJobLink"],
        "triggers": [{"integration-name": "Apache Iceberg", "python-modules": [f"{PACKAGE}.triggers.remote_job"]}],
        "asset-uris": [
            {
                "schemes": ["floe", "iceberg"],
                "handler": f"{PACKAGE}.assets.sanitize_uri",
                "factory": f"{PACKAGE}.assets.create_asset",
            }
        ],
        "cli": [f"{PACKAGE}.cli.get_cli_commands"],
        "config": {
            "floe": {
                "description": "Maintenance of Apache Iceberg tables by policy.",
                "options": {**_deployment_options(), **_settings_options()},
            }
        },
    }


def _ui_field_behaviour() -> dict[str, Any]:
    return {
        "hidden-fields": ["host", "port", "schema"],
        "relabeling": {"login": "Client id or user", "password": "Client secret, token or password"},
        "placeholders": {
            "login": "REST: OAuth2 client id. SQL: database user, when it is not in the URI",
            "password": "REST: client secret, or a token when no client id is given. SQL: database password",
        },
    }


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _connection_fields() -> dict[str, Any]:
    return {
        "catalog_kind": _field(
            "Catalog kind",
            "What kind of catalog this is.",
            enum=["gravitino", "hive", "lakekeeper", "nessie", "polaris", "rest", "sql"],
            default="rest",
        ),
        "catalog_name": _field("Catalog name", "The name that policies use; default: the connection id."),
        "uri": _field(
            "URI",
            "REST: https://host/api/catalog. Hive: thrift://host:9083. SQL: sqlite:////path/catalog.db or "
            "postgresql://host/database.",
        ),
        "warehouse": _field("Warehouse", "REST: the warehouse's name. SQL: root location of new tables."),
        "scope": _field("OAuth2 scope", "REST: scope of the token asked for, for example PRINCIPAL_ROLE:ALL."),
        "oauth2_server_uri": _field("OAuth2 server URI", "REST: token endpoint; recommended with a client id."),
        "access_delegation": _field(
            "Access delegation",
            "REST: vended-credentials asks the catalog for credentials of the storage, none does not. Default: it is "
            "asked unless the properties hold keys of the storage.",
            enum=["vended-credentials", "none", "", None],
        ),
        "ref": _field("Reference", "Nessie: branch or tag; default: main."),
        "properties": _field(
            "Properties",
            'More properties of the catalog and its storage, as JSON: {"s3.endpoint": "http://minio:9000"}.',
            format="json",
        ),
    }


def _option(
    kind: str, default: str | float | None, description: str, *, example: str | None = None, sensitive: bool = False
) -> dict[str, Any]:
    found = {
        "description": description,
        "version_added": FIRST_VERSION,
        "type": kind,
        "example": example,
        "default": default if default is None else str(default),
    }
    return {**found, "sensitive": True} if sensitive else found


def _deployment_options() -> dict[str, Any]:
    return {
        "catalogs": _option(
            "string",
            None,
            "Connection ids of the catalogs that policies range over, separated by commas. Connections of type floe "
            "or iceberg.",
            example="lake,archive",
        ),
        "policies_path": _option(
            "string",
            None,
            "File or folder that policies are read from; relative paths are relative to the folder of the DAG file. "
            "Default: the folder ``policies`` beside the DAG file.",
            example="/opt/airflow/policies",
        ),
        "store_conn_id": _option(
            "string",
            None,
            "PostgreSQL connection of the Floe store. Default: the SQLite file ``floe.db`` in Airflow's home, which "
            "serves one host only.",
            example="floe_store",
        ),
        "store_url": _option(
            "string",
            None,
            "SQLAlchemy URL of the Floe store, instead of a connection.",
            example="sqlite:////var/lib/floe/floe.db",
            sensitive=True,
        ),
        "trino_conn_id": _option(
            "string",
            None,
            "Connection of the Trino server that is engine trino. Its extra may map the catalogs of policies to those "
            "of the server under floe_catalogs; where it does not, both have the same names.",
            example="trino_default",
        ),
        "policies_in_store": _option(
            "boolean",
            "False",
            "When True, rows of the Floe store are policies too, beside those in files: see ``airflow floe policies``.",
        ),
        "spark_conn_id": _option(
            "string",
            None,
            "Connection of the Spark that is engine spark: of type spark (spark-submit), spark_connect (Spark 4 and "
            "newer) or livy. Its extra may map the catalogs of policies to those of Spark under floe_catalogs.",
            example="spark_default",
        ),
        "schedule_policies": _option(
            "boolean", "True", "When False, policy DAGs have no schedule and run only when triggered."
        ),
        "pool": _option("string", "default_pool", "Pool that the tasks of policy DAGs run in. It must exist."),
    }


def _settings_options() -> dict[str, Any]:
    """The fields of ``maintenance.settings.Settings``, written out so that nothing is imported; a test compares."""
    return {
        "persist_health": _option(
            "boolean", "True", "Keep health reports. When off, trends and gates that need history say unknown."
        ),
        "health_reports_per_table": _option("integer", 100, "Health reports kept for each table."),
        "health_report_days": _option("integer", 30, "Days that a health report is kept."),
        "operation_record_days": _option("integer", 365, "Days that the record of an operation is kept."),
        "emit_events": _option(
            "boolean",
            "True",
            "Emit an asset event for each table that really changed, and OpenLineage facets where the extra "
            "openlineage is installed. Log lines and metrics are written always.",
        ),
        "scan_mode": _option(
            "string",
            "scan",
            "How deep health is read: metadata (metadata file and manifest list only), scan (all manifests) or sample "
            "(manifests up to 10,000 files).",
        ),
        "assess_threads": _option("integer", 4, "Tables assessed at a time by one task."),
        "orphan_listing_limit": _option(
            "integer",
            100000,
            "Assess lists a table's storage to count orphans while it has at most this many files; 0 never lists.",
        ),
        "orphan_interval_days": _option(
            "float", 7.0, "Without a listing, orphan cleanup is worth running this many days after the last one."
        ),
        "max_tables_per_run": _option("integer", 0, "Tables that one run may work on; 0 means unlimited."),
        "max_operations_per_run": _option("integer", 0, "Operations that one run may execute; 0 means unlimited."),
        "max_bytes_per_hour": _option(
            "integer", 0, "Bytes, by estimate, that all runs together may read in an hour; 0 means unlimited."
        ),
        "backoff_after_failures": _option("integer", 3, "Consecutive failures after which an operation backs off."),
        "backoff_hours": _option("float", 6.0, "Hours that it backs off."),
        "throttle_after_zero_changes": _option(
            "integer", 5, "Consecutive runs without change after which every second due slot is left out."
        ),
        "throttle_min_hours": _option("float", 6.0, "Least hours between two runs while throttled."),
        "score_weights": _option(
            "string",
            None,  # Airflow formats defaults: braces are not possible
            "Overrides of the debt score's points, as JSON by name: critical, warning, info, "
            "per_day_since_newest_snapshot, failure_percent, per_consecutive_failure, maximum.",
            example='{"critical": 200}',
        ),
        "lease_seconds": _option(
            "integer", 300, "A table's lease runs out this many seconds after its last renewal (every third of it)."
        ),
        "lease_wait_seconds": _option(
            "integer", 3600, "Seconds that a run waits for a table that another run maintains."
        ),
        "max_batches": _option("integer", 200, "Most execute tasks of one run."),
        "max_tasks_per_table": _option(
            "integer", 1, "Most execute tasks that share one table's rewrite, one for each batch_bytes of it."
        ),
        "batch_bytes": _option("integer", 2147483648, "Small tables share an execute task up to this many bytes."),
        "batch_tables": _option("integer", 50, "Most tables that share an execute task."),
        "local_memory_limit_bytes": _option(
            "integer", 1073741824, "Memory that the local engine keeps to for its buffers and DuckDB."
        ),
        "default_timezone": _option(
            "string",
            None,
            "Time zone of schedules that name none. Default: Airflow's ``[core] default_timezone``.",
            example="Europe/Paris",
        ),
    }
