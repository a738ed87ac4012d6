"""The demo: an unhealthy lakehouse, a real Airflow that maintains it, and what it looked like before and after.

``make demo`` runs it; ``make ui`` starts Airflow again on what it left behind. Everything stands in ``.demo/``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import lakehouse
from harness.airflow_standalone import Standalone, free_port, is_free
from measure import TableState, measure, render

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = REPOSITORY / ".demo"
POLICIES = REPOSITORY / "demo" / "policies"
SCHEDULED = ("floe_policy_web", "floe_policy_sales", "floe_policy_audit")
ON_DEMAND = "floe_maintenance"
CONF = {"catalog": lakehouse.CATALOG, "namespace": "web", "table": "sessions"}
UI_PORT = 8080


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or only Airflow's UI on it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", action="store_true", help="start Airflow on the lakehouse that is there, until Ctrl-C")
    return show_ui() if parser.parse_args(arguments).ui else run()


def run() -> int:
    """From building the lakehouse to the verdict: 0 when everything went as it should."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    say("Building a lakehouse of nine tables, seven of them ill ...")
    catalog = lakehouse.build(ROOT / "lake")
    before = measure(catalog)
    say("Setting Airflow up: database, DAGs by `airflow floe init`, the connection `lake` ...")
    airflow = new_airflow()
    say("Starting `airflow standalone` ...")
    with airflow:
        airflow.wait_for_dags([*SCHEDULED, ON_DEMAND])
        say(f"Airflow is healthy and found its DAGs: {', '.join([*SCHEDULED, ON_DEMAND])}")
        for dag_id in (*SCHEDULED, ON_DEMAND):
            airflow.set_paused(dag_id, False)
        say(f"POST /api/v2/dags/{ON_DEMAND}/dagRuns with the conf {json.dumps(CONF)}")
        run_ids = {ON_DEMAND: airflow.trigger(ON_DEMAND, CONF)}
        states = {ON_DEMAND: airflow.wait_for_run(ON_DEMAND, run_ids[ON_DEMAND])}
        say(f"{ON_DEMAND}: {states[ON_DEMAND]}. Waiting for what the scheduler runs by itself ...")
        for dag_id in SCHEDULED:
            scheduled = airflow.wait_for_scheduled_run(dag_id)
            run_ids[dag_id], states[dag_id] = scheduled["dag_run_id"], scheduled["state"]
            say(f"{dag_id}: {states[dag_id]} ({run_ids[dag_id]})")
        verdict = sales_verdict(airflow, run_ids["floe_policy_sales"])
        say(f"It failed on purpose: {verdict}")
        say("Stopping Airflow ...")
    after = measure(catalog)
    print(f"\nBefore → after\n\n{render(before, after)}\n")
    passed = report(before, after, states, verdict)
    say("Done.")
    print("\nLook at it in Airflow's UI: make ui (no login needed: everyone is admin in this demo)")
    return 0 if passed else 1


def new_airflow() -> Standalone:
    """An Airflow of its own, migrated, with the loader files, the policies and the connection."""
    home = ROOT / "airflow"
    shutil.rmtree(home, ignore_errors=True)
    (home / "dags").mkdir(parents=True)
    shutil.copytree(POLICIES, home / "dags" / "policies")
    airflow = demo_airflow(free_port())
    airflow.cli("db", "migrate")
    airflow.cli("floe", "init", str(home / "dags"))
    properties = lakehouse.catalog_properties(ROOT / "lake")
    extra = {"catalog_kind": properties.pop("type"), **properties}
    airflow.cli("connections", "add", lakehouse.CATALOG, "--conn-type", "floe", "--conn-extra", json.dumps(extra))
    return airflow


def demo_airflow(port: int) -> Standalone:
    """The demo's Airflow, from what stands in ``.demo/airflow``."""
    settings = {"AIRFLOW__FLOE__CATALOGS": lakehouse.CATALOG}
    return Standalone(Path(sys.executable), ROOT / "airflow", settings, port)


def sales_verdict(airflow: Standalone, run_id: str) -> str:
    """What the verdict task of the policy `sales` says of the broken table."""
    log = airflow.task_log("floe_policy_sales", run_id, "verdict")
    return next(iter(re.findall(r"lake\.sales\.broken not assessed[^\n(]*\([^)]*\)[^\n(]*", log)), "nothing is said")


def report(
    before: Sequence[TableState], after: Sequence[TableState], states: dict[str, str], sales_failure: str
) -> bool:
    """Print what was promised and whether it holds."""
    old = {state.name: state for state in before}
    new = {state.name: state for state in after}
    readable = [name for name, state in old.items() if state.digest]
    checks = {
        f"all {len(readable)} readable tables hold the same rows, by DuckDB's own Iceberg reader": all(
            old[name].digest == new[name].digest for name in readable
        ),
        "web.clicks: its small files are compacted": new["web.clicks"].data_files < old["web.clicks"].data_files,
        "web.sessions: three snapshots are left": new["web.sessions"].snapshots == 3,
        "sales.orders: deletes are applied": new["sales.orders"].delete_files == 0,
        "sales.returns: old orphans are gone, the two young files are kept": new["sales.returns"].orphans == 2,
        "ops.audit.events: manifests are merged": new["ops.audit.events"].manifests < 10,
        "sales.customers (healthy) and scratch.tmp (no policy) are untouched": all(
            old[name] == new[name] for name in ("sales.customers", "scratch.tmp", "web.pages")
        ),
        "sales.broken failed alone, and its run says so": states["floe_policy_sales"] == "failed"
        and "lake.sales.broken" in sales_failure
        and all(state == "success" for dag_id, state in states.items() if dag_id != "floe_policy_sales"),
    }
    for text, holds in checks.items():
        print(f"  {'ok    ' if holds else 'FAILED'}  {text}")
    print()
    return all(checks.values())


def show_ui() -> int:
    """Airflow on the demo's lakehouse, until Ctrl-C."""
    if not (ROOT / "airflow" / "airflow.db").exists():
        print("There is no demo yet: run `make demo` first.", file=sys.stderr)
        return 1
    airflow = demo_airflow(UI_PORT if is_free(UI_PORT) else free_port())
    print("Starting Airflow ...", flush=True)
    with airflow:
        print(f"Airflow is at {airflow.url} (no login: everyone is admin in this demo). Ctrl-C ends it.", flush=True)
        try:
            airflow.wait()
        except KeyboardInterrupt:
            print("Stopping ...", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
