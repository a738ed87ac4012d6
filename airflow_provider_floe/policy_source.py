"""Where a run's policies come from: files beside the DAG or configured, rows of the Floe store, and the DAG itself."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policy_rows import read_rows, rows_for_parsing

if TYPE_CHECKING:
    from airflow_provider_floe.policies.loading import PolicySet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicySource:
    """Policies to load for a task or a command.

    :ivar path: file or folder.
    :ivar inline: policies that stand in the DAG; their names must not stand elsewhere too.
    :ivar required: whether a ``path`` that does not exist is an error.
    """

    path: Path
    inline: tuple[Policy, ...] = ()
    required: bool = True

    def load(self) -> tuple[Policy, ...]:
        """All good policies; bad ones are logged, each with where it stands.

        :raises ConfigurationError: when the path does not exist, or a policy stands both inline and elsewhere.
        :raises StoreUnavailable: when policies are rows too, and the store does not answer.
        """
        loaded = load_path(self.path, read_rows(), required=self.required)
        for problem in loaded.problems:
            log.warning("left out: %s", problem)
        own = {policy.name for policy in self.inline}
        for other in loaded.policies:
            if other.policy.name in own:
                raise ConfigurationError(
                    f"policy {other.policy.name!r} stands both in the DAG and in {other.source}: rename or remove one "
                    "of them"
                )
        return (*loaded.all, *self.inline)


def load_path(
    path: Path,
    rows: Mapping[str, str] | None = None,
    *,
    required: bool = True,
    engines: Collection[str] | None = None,
) -> PolicySet:
    """Load a file or folder of policies, and rows of the Floe store, as one set.

    :param rows: JSON documents by name.
    :param required: whether it must exist. The default folder need not where rows are policies too.
    :param engines: known engine names; None accepts any.
    :raises ConfigurationError: when it does not exist but must.
    """
    from airflow_provider_floe.policies.loading import load_policies

    return load_policies(
        _existing(path, required), rows=rows, engines=engines, default_timezone=config.default_timezone()
    )


def load_named(path: Path, name: str) -> Policy | None:
    """One policy of a file or folder or of the Floe store, without parsing what does not mention it.

    :raises ConfigurationError: when the path does not exist but must.
    """
    from airflow_provider_floe.policies.loading import load_policies, policy_files

    mentioning = [file for file in policy_files(_existing(path)) if name.encode() in file.read_bytes()]
    loaded = load_policies(mentioning, default_timezone=config.default_timezone())
    if all(policy.name != name for policy in loaded.all):
        row = {key: document for key, document in rows_for_parsing().documents.items() if key == name}
        loaded = load_policies([], rows=row, default_timezone=config.default_timezone())
    return next((policy for policy in loaded.all if policy.name == name), None)


def _existing(path: Path, required: bool = True) -> list[Path]:
    if path.exists():
        return [path]
    if required and (config.option("policies_path") or not config.policies_in_store()):
        raise ConfigurationError(
            f"no policies: {path} does not exist. Put policy files there, or set [floe] policies_path"
        )
    return []


def as_policy(document: Policy | dict[str, Any]) -> Policy:
    """A policy from a document written in a DAG.

    :raises InvalidPolicy: naming field, value and the fix.
    """
    if isinstance(document, Policy):
        return document
    from airflow_provider_floe.policies.loading import parse_policy

    try:
        return parse_policy(document)
    except InvalidPolicy as error:
        raise InvalidPolicy(f"policy {document.get('name', '(without a name)')!r} in the DAG: {error}") from error


def as_policies(given: Policy | dict[str, Any] | Sequence[Policy | dict[str, Any]]) -> tuple[Policy, ...]:
    """One or several documents as policies, by name."""
    documents = [given] if isinstance(given, Policy | dict) else list(given)
    return tuple(sorted((as_policy(document) for document in documents), key=lambda policy: policy.name))
