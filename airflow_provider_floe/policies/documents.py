"""Reads YAML and JSON text into values that know their line, without ever failing as a whole.

Built on the parser's events rather than on PyYAML's composer: that one recurses in C, so deeply nested text ends the
process, and it neither keeps lines nor notices duplicate keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
_TAG = "tag:yaml.org,2002:"
_COLLECTION_TAGS = (None, "!", _TAG + "map", _TAG + "seq")
_JSON_ESCAPE = re.compile(r"\\(?:u([dD][89abAB]\w\w)\\u([dD][c-fC-F]\w\w)|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the text that has no meaning: line (1-based), dotted path from the node that holds it, reason."""

    line: int
    path: str
    reason: str


@dataclass(slots=True)
class Node:
    """A value and its line (of the key, in a mapping). Mappings and lists hold nodes.

    :ivar faults: what is wrong with this node itself; what is wrong below it stands there.
    """

    value: Any
    line: int
    faults: list[Fault] = field(default_factory=list)


class SyntaxFault(Exception):
    """The rest of the text cannot be read.

    :ivar line: 1-based.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_json(text: str) -> Iterator[Node]:
    """The one document of a JSON text.

    :raises SyntaxFault: with the line.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise SyntaxFault(error.lineno, f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise SyntaxFault(1, f"not JSON that can be read: {error}") from None
    # Valid JSON is YAML but for two things: tabs between values, and characters written as two surrogates.
    text = _JSON_ESCAPE.sub(_joined_surrogates, text.replace("\t", " "))
    yield from _documents(text, json_scalars=True)


def read_yaml(text: str) -> Iterator[Node]:
    """The documents of a YAML text, each as soon as it is complete; empty ones are left out.

    :raises SyntaxFault: with the line, after the documents before it.
    """
    yield from _documents(text, json_scalars=False)


def _joined_surrogates(match: re.Match[str]) -> str:
    if match.group(1) is None:
        return match.group()
    return chr(0x10000 + (int(match.group(1), 16) - 0xD800) * 0x400 + int(match.group(2), 16) - 0xDC00)


def _documents(text: str, *, json_scalars: bool) -> Iterator[Node]:
    builder = _Builder(json_scalars)
    line = 1
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else line
            document = builder.take(event, line)
            if document is not None and document.value is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise SyntaxFault(mark.line + 1 if mark else line, f"not YAML: {reason}") from None
    except yaml.YAMLError as error:
        first, *_ = str(error).splitlines() or ["unreadable"]
        raise SyntaxFault(line, f"not YAML: {first}") from None
    except UnicodeError as error:
        raise SyntaxFault(line, f"not text: {error}") from None


@dataclass(slots=True)
class _Open:
    """A collection that is being read; ``key`` is the mapping key whose value comes next."""

    node: Node
    anchor: str | None
    key: Node | None = None
    merged: list[Node] = field(default_factory=list)


class _Builder:
    def __init__(self, json_scalars: bool) -> None:
        self.json_scalars = json_scalars
        self.constructor = SafeConstructor()
        self.resolver: Any = Resolver()
        self._start_document()

    def _start_document(self) -> None:
        self.open: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.values = 0

    def take(self, event: Event, line: int) -> Node | None:
        """Add one event; the document, when the event ends it."""
        if isinstance(event, DocumentStartEvent):
            self._start_document()
        elif isinstance(event, DocumentEndEvent):
            return self.root
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._begin(event, line)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            closed = self.open.pop()
            _merge(closed)
            if closed.anchor:
                self.anchors[closed.anchor] = closed.node
            self._add(closed.node)
        elif isinstance(event, ScalarEvent):
            node = self._scalar(event, line)
            if event.anchor:
                self.anchors[event.anchor] = node
            self._add(node)
        elif isinstance(event, AliasEvent):
            self._add(self._alias(event, line))
        return None

    def _begin(self, event: MappingStartEvent | SequenceStartEvent, line: int) -> None:
        if len(self.open) >= _MAX_DEPTH:
            raise SyntaxFault(line, f"nested deeper than {_MAX_DEPTH} levels")
        node = Node({} if isinstance(event, MappingStartEvent) else [], line)
        if event.tag not in _COLLECTION_TAGS:
            node.faults.append(Fault(line, "", f"the tag {event.tag} is not accepted"))
        self.open.append(_Open(node, event.anchor))

    def _alias(self, event: AliasEvent, line: int) -> Node:
        found = self.anchors.get(event.anchor or "")
        if found is not None:
            return Node(found.value, line, found.faults)
        inside = any(entry.anchor == event.anchor for entry in self.open)
        reason = (
            "refers to something that contains it" if inside else "refers to an anchor that is not defined before it"
        )
        return Node(None, line, [Fault(line, "", f"*{event.anchor} {reason}")])

    def _add(self, node: Node) -> None:
        self.values += 1
        if self.values > _MAX_VALUES:
            raise SyntaxFault(node.line, f"more than {_MAX_VALUES} values in one document")
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            key, parent.key = parent.key, None
            _set(parent, key, node)

    def _scalar(self, event: ScalarEvent, line: int) -> Node:
        if self.json_scalars:
            return Node(json.loads(event.value) if event.implicit[0] else event.value, line)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.resolver.resolve(ScalarNode, event.value, event.implicit)
        if tag in (_TAG + "timestamp", _TAG + "value"):  # a policy holds no dates: they are text
            tag = _TAG + "str"
        if tag == _TAG + "merge":
            return Node(_MERGE, line)
        node = ScalarNode(tag, event.value)
        try:
            value = self.constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, ArithmeticError, LookupError) as error:
            first, *_ = str(getattr(error, "problem", None) or error).splitlines() or ["unreadable"]
            return Node(None, line, [Fault(line, "", f"{event.value[:80]!r} cannot be read as {tag}: {first}")])
        finally:
            self.constructor.constructed_objects.clear()
        return Node(value, line)


_MERGE = object()


def _set(parent: _Open, key: Node, node: Node) -> None:
    mapping = parent.node.value
    if key.value is _MERGE:
        parent.merged += node.value if isinstance(node.value, list) else [node]
        return
    if key.faults or not isinstance(key.value, str):
        shown = key.value if not isinstance(key.value, dict | list) else "a collection"
        parent.node.faults.append(Fault(key.line, "", f"the key {shown!r} is not text: put it in quotes"))
        return
    if key.value in mapping:
        first = mapping[key.value].line
        parent.node.faults.append(
            Fault(key.line, key.value, f"stands twice, first in line {first}; remove one of them")
        )
        return
    mapping[key.value] = Node(node.value, key.line, node.faults)


def _merge(closed: _Open) -> None:
    """Apply YAML's ``<<``: entries of the merged mappings where the mapping has none of its own."""
    for source in closed.merged:
        if not isinstance(source.value, dict):
            closed.node.faults.append(Fault(source.line, "<<", "can only merge mappings"))
            continue
        closed.node.faults += source.faults
        for key, node in source.value.items():
            closed.node.value.setdefault(key, node)


def plain(node: Node) -> tuple[Any, list[Fault]]:
    """The value without lines, and the faults in it, each with its path.

    Aliases let a short text stand for a huge value: what exceeds the limits becomes None, with a fault.
    """
    flattening = _Flattening()
    return flattening.plain(node, "", 0), flattening.faults


class _Flattening:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.left = _MAX_VALUES

    def plain(self, node: Node, path: str, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            if not self.faults or not self.faults[-1].reason.startswith("too large"):
                reason = f"too large: more than {_MAX_VALUES} values or {_MAX_DEPTH} levels, aliases written out"
                self.faults.append(Fault(node.line, path, reason))
            return None
        self.faults += [Fault(fault.line, join(path, fault.path), fault.reason) for fault in node.faults]
        if isinstance(node.value, dict):
            return {key: self.plain(child, join(path, key), depth + 1) for key, child in node.value.items()}
        if isinstance(node.value, list):
            return [self.plain(child, f"{path}[{index}]", depth + 1) for index, child in enumerate(node.value)]
        return "<<" if node.value is _MERGE else node.value


def join(path: str, key: str) -> str:
    """A dotted path, one step longer."""
    return f"{path}.{key}" if path and key else path or key
