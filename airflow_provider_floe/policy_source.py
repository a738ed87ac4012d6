"""Where a run's policies come from: files beside the DAG or configured, and policies written in the DAG itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_floe import config
from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy
from airflow_provider_floe.policies.model import Policy

if TYPE_CHECKING:
    from airflow_provider_floe.policies.loading import PolicySet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicySource:
    """Files and policies to load.

    :ivar path: file or folder; None reads no files.
    :ivar inline: policies that stand in the DAG; their names must not stand in the files too.
    :ivar required: whether a ``path`` that does not exist is an error.
    """

    path: Path | None = None
    inline: tuple[Policy, ...] = ()
    required: bool = True

    def load(self) -> tuple[Policy, ...]:
        """All good policies; bad ones are logged, each with its file and line.

        :raises ConfigurationError: when the path does not exist, or a policy stands both inline and in a file.
        """
        found: tuple[Policy, ...] = ()
        if self.path is not None and (self.required or self.path.exists()):
            loaded = load_path(self.path)
            for problem in loaded.problems:
                log.warning("left out: %s", problem)
            found = loaded.all
        twice = sorted({policy.name for policy in self.inline} & {policy.name for policy in found})
        if twice:
            raise ConfigurationError(
                f"policy {twice[0]!r} stands both in the DAG and in {self.path}: rename or remove one of them"
            )
        return (*found, *self.inline)


def load_path(path: Path) -> PolicySet:
    """Load a file or folder of policies.

    :raises ConfigurationError: when it does not exist.
    """
    from airflow_provider_floe.policies.loading import load_policies

    if not path.exists():
        raise ConfigurationError(
            f"no policies: {path} does not exist. Put policy files there, or set [floe] policies_path"
        )
    return load_policies([path], default_timezone=config.default_timezone())


def load_named(path: Path, name: str) -> Policy | None:
    """One policy of a file or folder, without parsing files that do not mention it.

    :raises ConfigurationError: when the path does not exist.
    """
    from airflow_provider_floe.policies.loading import load_policies, policy_files

    mentioning = [file for file in policy_files([path]) if name.encode() in file.read_bytes()]
    loaded = load_policies(mentioning, default_timezone=config.default_timezone())
    return next((policy for policy in loaded.all if policy.name == name), None)


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
