"""Floe inside an Airflow dag of your own: one table with a policy in code, and a policy's tasks as a group."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_provider_floe.dag_factory import FloeTaskGroup
from airflow_provider_floe.operators.maintenance import FloeMaintenanceOperator

ORDERS_POLICY = {
    "name": "orders-after-load",
    "tablePattern": "lake.sales.orders",
    "rewriteDataFiles": {"targetFileSizeBytes": 134217728},
    "expireSnapshots": {"retainLast": 10, "maxSnapshotAge": "P3D"},
}
SALES_POLICY = {
    "name": "sales-manifests",
    "tablePattern": "lake.sales.*",
    "rewriteManifests": {},
}

with DAG(
    dag_id="example_floe_operator",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["floe", "example"],
):
    # [START howto_operator_floe_maintenance]
    orders = FloeMaintenanceOperator(
        task_id="maintain_orders",
        table="lake.sales.orders",
        policy=ORDERS_POLICY,
        operations=["rewrite_data_files", "expire_snapshots"],
    )
    # [END howto_operator_floe_maintenance]
    # [START howto_taskgroup_floe]
    sales = FloeTaskGroup(SALES_POLICY, group_id="sales_manifests")
    # [END howto_taskgroup_floe]
    orders >> sales
