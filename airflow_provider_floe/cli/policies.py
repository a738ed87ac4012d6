"""``airflow floe policies``: the policies that stand as rows in the Floe store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airflow_provider_floe import config
from airflow_provider_floe.cli.output import print_json, print_rows
from airflow_provider_floe.cli.process import FAILED, GOOD, command, policies_path
from airflow_provider_floe.errors import InvalidPolicy, PolicyNotFound
from airflow_provider_floe.policies.loading import PolicySet, load_policies
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policy_rows import floe_store
from airflow_provider_floe.policy_source import load_path
from airflow_provider_floe.tables import Operation


@command
def list_policies(args: argparse.Namespace) -> int:
    """List the store's policies; those that are no longer valid with what is wrong."""
    with floe_store() as store:
        documents = store.policy_documents()
    found = load_policies([], rows=documents, default_timezone=config.default_timezone())
    good = {policy.name: policy for policy in found.all}
    if args.output == "json":
        print_json(
            {
                "policies": [policy.wire() for policy in good.values()],
                "problems": [str(problem) for problem in found.problems],
            }
        )
    else:
        rows = [_row(name, good.get(name)) for name in documents]
        print_rows(rows, "table", empty="no policy stands in the Floe store")
        for problem in found.problems:
            print(f"refused: {problem}")
    _hint()
    return FAILED if found.problems else GOOD


@command
def put(args: argparse.Namespace) -> int:
    """Create or replace policies, after all of them were found good."""
    found = load_policies([Path(file) for file in args.files], default_timezone=config.default_timezone())
    if found.problems:
        told = "\n".join(f"- {problem}" for problem in found.problems)
        raise InvalidPolicy(f"nothing was written:\n{told}")
    if config.policies_in_store():
        _refuse_names_in_files(found)
    done = []
    with floe_store() as store, store.transaction():
        before = store.policy_documents()
        for policy in found.all:
            store.put_policy(policy)
        after = store.policy_documents()
    for policy in found.all:
        old = before.get(policy.name)
        change = "created" if old is None else "unchanged" if old == after[policy.name] else "replaced"
        done.append({"policy": policy.name, "change": change})
    print_rows(done, args.output, empty="the files hold no policy")
    _hint()
    return GOOD


@command
def remove(args: argparse.Namespace) -> int:
    """Remove one policy."""
    with floe_store() as store:
        if not store.delete_policy(args.name):
            known = ", ".join(store.policy_documents()) or "none"
            raise PolicyNotFound(f"no policy {args.name!r} stands in the Floe store: there are {known}")
    print_rows([{"policy": args.name, "change": "removed"}], args.output, empty="")
    return GOOD


def _refuse_names_in_files(found: PolicySet) -> None:
    names = {policy.name for policy in found.all}
    files = {loaded.source.rpartition(":")[0] for loaded in found.policies}
    for other in load_path(policies_path(None), required=False).policies:
        if other.policy.name in names:
            same = other.source.rpartition(":")[0] in files
            raise InvalidPolicy(
                f"nothing was written: policy {other.policy.name!r} stands in {other.source}, and in two places both "
                f"would be refused: {'move that file elsewhere' if same else 'remove it there'} first, or rename this "
                "one"
            )


def _row(name: str, policy: Policy | None) -> dict[str, str]:
    if policy is None:
        return {"policy": name, "state": "refused", "tables": "-", "operations": "-"}
    operations = [operation.value for operation in Operation if policy.settings(operation) is not None]
    return {
        "policy": name,
        "state": "enabled" if policy.enabled else "disabled",
        "tables": policy.table_pattern,
        "operations": ", ".join(operations) or "-",
    }


def _hint() -> None:
    if not config.policies_in_store():
        print("These are not used: [floe] policies_in_store is False", file=sys.stderr)
