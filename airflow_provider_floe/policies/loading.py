"""Loads policies from files: YAML and JSON, one or many to a file; a bad policy never takes the good ones with it.

A file holds one policy, a list of policies, or a mapping with ``policies:``; a YAML file may hold several such
documents, separated by ``---``. In folders every ``*.yaml``, ``*.yml`` and ``*.json`` is read, in sorted order; names
that begin with a dot are left out (editors' and ConfigMap mounts' copies).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy, PolicyNotFound
from airflow_provider_floe.policies.documents import Node, SyntaxFault, plain, read_json, read_yaml
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.validation import FieldProblem, check_policy, nearest, shown, warnings_of

SUFFIXES = (".yaml", ".yml", ".json")
_LIST_KEY = "policies"


ROWS = "Floe store"
"""Where a policy stands that is a row: ``Floe store, row 'name'``."""


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A good policy and where it stands, as ``file:line`` or a row of the Floe store."""

    policy: Policy
    source: str


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing that is wrong in a file, or in a row of the Floe store.

    :ivar line: 1-based; 0 for a row.
    :ivar policy: the name of the policy, where the document has one.
    :ivar problem: field (dotted wire path), value, reason and the nearest valid name.
    """

    file: str
    line: int
    problem: FieldProblem
    policy: str | None = None

    @property
    def source(self) -> str:
        """``file:line``, or the row."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        name = f"policy {self.policy!r}: " if self.policy else ""
        return f"{self.source}: {name}{self.problem}"


@dataclass(frozen=True, slots=True)
class PolicySet:
    """What was found, the same in every process.

    :ivar policies: good ones, by name; disabled ones included.
    :ivar problems: why others were refused, by file and line.
    :ivar warnings: what is allowed but without effect, by file and line.
    """

    policies: tuple[LoadedPolicy, ...] = ()
    problems: tuple[PolicyProblem, ...] = ()
    warnings: tuple[PolicyProblem, ...] = ()

    @property
    def all(self) -> tuple[Policy, ...]:
        """The good policies themselves, by name."""
        return tuple(loaded.policy for loaded in self.policies)

    def named(self, name: str) -> LoadedPolicy:
        """The policy of that name.

        :raises PolicyNotFound: naming the nearest one, and why it was refused if it was.
        """
        for loaded in self.policies:
            if loaded.policy.name == name:
                return loaded
        refused = [str(problem) for problem in self.problems if problem.policy == name]
        if refused:
            raise PolicyNotFound(f"policy {name!r} was refused: {'; '.join(refused)}")
        close = nearest(name, [loaded.policy.name for loaded in self.policies])
        raise PolicyNotFound(f"there is no policy named {name!r}" + (f"; did you mean {close!r}?" if close else ""))


@dataclass(slots=True)
class _Collected:
    engines: Collection[str] | None
    default_timezone: str
    policies: list[tuple[LoadedPolicy, str, int]] = field(default_factory=list)
    problems: list[PolicyProblem] = field(default_factory=list)
    warnings: list[PolicyProblem] = field(default_factory=list)


def load_policies(
    paths: Sequence[Path],
    *,
    rows: Mapping[str, str] | None = None,
    engines: Collection[str] | None = None,
    default_timezone: str = "UTC",
) -> PolicySet:
    """Load policies from files, folders and rows of the Floe store. Two policies of one name are both refused.

    :param rows: JSON documents by name.
    :param engines: known engine names; None accepts any.
    :param default_timezone: IANA name, for schedules that name none.
    :raises ConfigurationError: when a path does not exist. Nothing is raised for what files hold.
    """
    collected = _Collected(engines, default_timezone)
    for path in policy_files(paths):
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
            collected.problems.append(PolicyProblem(str(path), 1, FieldProblem("", None, reason)))
            continue
        _read(text, str(path), path.suffix == ".json", collected)
    for name, document in sorted((rows or {}).items()):
        _read_row(name, document, collected)
    return _policy_set(collected)


def load_text(
    text: str,
    file: str,
    *,
    json: bool = False,
    engines: Collection[str] | None = None,
    default_timezone: str = "UTC",
) -> PolicySet:
    """Load policies from text that stands, or is going to stand, in a file of that name.

    :param json: the text is JSON; default: YAML.
    """
    collected = _Collected(engines, default_timezone)
    _read(text, file, json, collected)
    return _policy_set(collected)


def parse_policy(
    document: Mapping[str, Any], *, engines: Collection[str] | None = None, default_timezone: str = "UTC"
) -> Policy:
    """A policy from a document that is already decoded.

    :raises InvalidPolicy: naming every wrong field, its value and the nearest valid name.
    """
    policy, problems, _ = check_policy(document, engines=engines, default_timezone=default_timezone)
    if policy is None:
        raise InvalidPolicy("; ".join(map(str, problems)))
    return policy


def policy_files(paths: Sequence[Path]) -> list[Path]:
    """The files that :func:`load_policies` reads, each once.

    :raises ConfigurationError: when a path does not exist.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"policies: {path} does not exist: create it, or correct the path")
        for file in _walk(path) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield Path(directory, name)


def _read(text: str, file: str, json: bool, collected: _Collected) -> None:
    try:
        for document in read_json(text) if json else read_yaml(text):
            for node in _policies_in(document, file, collected):
                _check(node, file, collected)
    except SyntaxFault as fault:
        collected.problems.append(PolicyProblem(file, fault.line, FieldProblem("", None, str(fault))))


def _read_row(name: str, document: str, collected: _Collected) -> None:
    place = f"{ROWS}, row {name!r}"
    row = _Collected(collected.engines, collected.default_timezone)
    _read(document, place, True, row)
    collected.problems += [replace(problem, line=0, policy=problem.policy or name) for problem in row.problems]
    collected.warnings += [replace(warning, line=0) for warning in row.warnings]
    collected.policies += [(LoadedPolicy(loaded.policy, place), place, 0) for loaded, _, _ in row.policies]


def _policies_in(document: Node, file: str, collected: _Collected) -> list[Node]:
    """The nodes that are to be policies; what surrounds them is checked here."""
    if isinstance(document.value, list):
        return document.value
    if not isinstance(document.value, dict) or _LIST_KEY not in document.value:
        return [document]
    for fault in document.faults:
        collected.problems.append(PolicyProblem(file, fault.line, FieldProblem(fault.path, None, fault.reason)))
    for key, node in document.value.items():
        if key != _LIST_KEY:
            problem = FieldProblem(key, shown(node.value), f"unknown field beside {_LIST_KEY!r}")
            collected.problems.append(PolicyProblem(file, node.line, problem))
    listed = document.value[_LIST_KEY]
    if listed.value is None or isinstance(listed.value, list):
        return listed.value or []
    collected.problems.append(
        PolicyProblem(file, listed.line, FieldProblem(_LIST_KEY, shown(listed.value), "must be a list of policies"))
    )
    return []


def _check(node: Node, file: str, collected: _Collected) -> None:
    value, faults = plain(node)
    if not isinstance(value, dict):
        reason = faults[0].reason if faults else "a policy must be a mapping with at least name and tablePattern"
        collected.problems.append(PolicyProblem(file, node.line, FieldProblem("", shown(value), reason)))
        return
    policy, problems, written = check_policy(
        value, engines=collected.engines, default_timezone=collected.default_timezone
    )
    name = value["name"] if isinstance(value.get("name"), str) else None
    for fault in faults:
        problem = FieldProblem(fault.path, None, fault.reason)
        collected.problems.append(PolicyProblem(file, fault.line, problem, name))
    known = {fault.path for fault in faults}
    for problem in problems:
        if problem.field not in known:
            collected.problems.append(PolicyProblem(file, _line(node, problem.field, written), problem, name))
    if policy is None or faults:
        return
    for warning in warnings_of(policy):
        collected.warnings.append(PolicyProblem(file, _line(node, warning.field, written), warning, name))
    collected.policies.append((LoadedPolicy(policy, f"{file}:{node.line}"), file, node.line))


def _line(node: Node, path: str, written: Mapping[str, str]) -> int:
    """The line of a field, or of what is nearest around it."""
    prefixes = [prefix for prefix in written if re.match(re.escape(prefix) + r"(?![^.\[])", path)]
    if prefixes:
        longest = max(prefixes, key=len)
        path = written[longest] + path[len(longest) :]
    steps = re.findall(r"[^.\[\]]+", path)
    line = node.line
    for step in steps:
        if isinstance(node.value, dict) and step in node.value:
            node = node.value[step]
        elif isinstance(node.value, list) and step.isdecimal() and int(step) < len(node.value):
            node = node.value[int(step)]
        else:
            break
        line = node.line
    return line


def _policy_set(collected: _Collected) -> PolicySet:
    by_name: defaultdict[str, list[tuple[LoadedPolicy, str, int]]] = defaultdict(list)
    for entry in collected.policies:
        by_name[entry[0].policy.name].append(entry)
    good: list[LoadedPolicy] = []
    problems = list(collected.problems)
    for name, entries in by_name.items():
        if len(entries) == 1:
            good.append(entries[0][0])
            continue
        for loaded, file, line in entries:
            others = ", ".join(other.source for other, _, _ in entries if other is not loaded)
            problem = FieldProblem("name", repr(name), f"another policy has this name, in {others}; both are refused")
            problems.append(PolicyProblem(file, line, problem, name))
    good.sort(key=lambda loaded: loaded.policy.name)
    return PolicySet(tuple(good), _sorted(problems), _sorted(collected.warnings))


def _sorted(problems: list[PolicyProblem]) -> tuple[PolicyProblem, ...]:
    return tuple(sorted(problems, key=lambda one: (one.file, one.line, one.problem.field, one.problem.reason)))
