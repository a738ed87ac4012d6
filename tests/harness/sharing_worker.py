"""A process of its own that helps to write file groups: ``python -m harness.sharing_worker FOLDER PLAN HANG``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from airflow_provider_floe.catalogs.base import ConnectionFields
from airflow_provider_floe.catalogs.client import connect
from airflow_provider_floe.engines.local import group_writer
from airflow_provider_floe.engines.local.engine import LocalEngine
from airflow_provider_floe.engines.local.rewrite_group import GroupRewrite, Written
from airflow_provider_floe.maintenance.environment import Environment
from airflow_provider_floe.maintenance.locations import TableLocations
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.maintenance.sharing import help_item
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.open import open_store

LEASE = 3
POLICY = {
    "name": "all",
    "tablePattern": "lake.db.*",
    "rewriteDataFiles": {"maxConcurrentFileGroupRewrites": 1},
}


def environment(folder: Path, **rewrite: Any) -> Environment:
    """On the catalog and store below a folder; one task for each KiB, and at most three a table."""
    extra = {
        "catalog_kind": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/warehouse",
    }
    policy = {**POLICY, "rewriteDataFiles": {"maxConcurrentFileGroupRewrites": 1, **rewrite}}
    return Environment(
        store=open_store(f"sqlite:///{folder}/floe.db"),
        policies=(Policy.model_validate(policy),),
        catalogs={"lake": connect(ConnectionFields("lake", extra=extra))},
        engines={"local": LocalEngine(memory_limit_bytes=256 * 1024**2)},
        settings=Settings(lease_seconds=LEASE, lease_wait_seconds=0, batch_bytes=1024),
    )


def hang_in_a_group() -> None:
    """Let the next file group write its file, say so, and not come back."""
    whole = group_writer.rewrite_group

    def hanging(job: GroupRewrite) -> Written:
        written = whole(job)
        print("wrote", *(file.file_path for file in written.files), flush=True)
        while True:
            job.progress(0)  # as a group that is read does
            time.sleep(0.05)

    group_writer.rewrite_group = hanging


def main() -> None:
    folder, plan_id, hang = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "hang"
    if hang:
        hang_in_a_group()
    env = environment(folder)
    plan = env.store.plan(plan_id)
    item = plan.item(plan.helpers[0])
    print("helped", help_item(env, plan, item, TableLocations(env), cancelled=lambda: False), flush=True)


if __name__ == "__main__":
    main()
