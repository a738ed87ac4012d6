"""Refuses regular expressions that can take exponential, or high polynomial, time on a short name.

The check is conservative: it reads the expression with a small parser of its own and refuses what it cannot show to be
harmless. Four things make a backtracking matcher explode:

* a repetition inside a repetition, ``(a+)+``;
* alternatives under a repetition that can begin with the same character, ``(a|ab)*``;
* many repetitions in a row that can give each other characters, ``.*.*.*.*x``;
* many optional parts or ambiguous alternatives, ``a?a?a?a?...``: each doubles the ways to try.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

_PROBES = (*map(chr, range(128)), "é", "ß", "Ж", "日", "٣")
_GROUP_START = re.compile(r"\((\?(?:P<\w+>|:|=|!|>))?(?!\?)")
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")
_INLINE_FLAGS = re.compile(r"\(\?([aimsu]+)\)")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_ZERO_WIDTH = ("^", "$", r"\b", r"\B", r"\A", r"\Z")
_MANY = 1_000
_LONGEST_CHAIN = 3
_MOST_CHOICES = 64


class UnsafeRegex(ValueError):
    """The expression may take too long; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class _Item:
    """An atom with its repetition; ``branches`` are a group's alternatives, ``chars`` the probes it may begin with."""

    text: str
    chars: frozenset[str]
    least: int
    most: int
    branches: tuple[tuple[_Item, ...], ...] = ()

    @property
    def varies(self) -> bool:
        return self.least != self.most

    @property
    def repeats(self) -> bool:
        return self.most > 1

    @property
    def alphabet(self) -> frozenset[str]:
        """The probes it may hold anywhere."""
        return self.chars.union(*(item.alphabet for branch in self.branches for item in branch))


def refuse_unsafe(expression: str) -> None:
    """Return when the expression cannot backtrack catastrophically.

    :raises UnsafeRegex: naming the part and how to write it instead.
    :raises re.error: when it is not a regular expression.
    """
    re.compile(expression)
    flags = _INLINE_FLAGS.match(expression)
    body = expression[flags.end() :] if flags else expression
    branches = _Parser(body, re.compile(flags.group()).flags & ~re.UNICODE if flags else 0).parse()
    choices = _choices(branches)
    if choices > _MOST_CHOICES:
        raise UnsafeRegex(
            f"its optional parts and alternatives that begin alike can be combined in {choices} ways, of which at most "
            f"{_MOST_CHOICES} are accepted; write fewer of them, or several policies"
        )
    for branch in branches:
        _check_sequence(branch)


class _Parser:
    def __init__(self, text: str, flags: int) -> None:
        self.text = text
        self.flags = flags
        self.at = 0

    def parse(self) -> tuple[tuple[_Item, ...], ...]:
        branches = self._alternatives()
        if self.at != len(self.text):
            raise UnsafeRegex(f"{self.text[self.at :]!r} cannot be read")
        return branches

    def _alternatives(self) -> tuple[tuple[_Item, ...], ...]:
        branches: list[tuple[_Item, ...]] = []
        items: list[_Item] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                branches.append(tuple(items))
                items = []
            else:
                item = self._item()
                if item is not None:
                    items.append(item)
        return (*branches, tuple(items))

    def _item(self) -> _Item | None:
        start = self.at
        branches: tuple[tuple[_Item, ...], ...] = ()
        look_ahead = False
        if self.text[start] == "(":
            opening = _GROUP_START.match(self.text, start)
            if opening is None:
                raise UnsafeRegex(
                    f"{self.text[start : start + 4]!r}: only (...), (?:...), (?P<name>...), (?=...), (?!...) groups "
                    "and flags at the very beginning are accepted"
                )
            look_ahead = opening.group(1) in ("?=", "?!")
            self.at = opening.end()
            branches = self._alternatives()
            self.at += 1
            chars = frozenset().union(*(_first(branch) for branch in branches))
        else:
            chars = self._atom()
        atom = self.text[start : self.at]
        least, most = self._repetition()
        if look_ahead:
            for branch in branches:
                _check_sequence(branch)
        if look_ahead or atom in _ZERO_WIDTH:
            return None
        return _Item(self.text[start : self.at], chars, least, most, branches)

    def _atom(self) -> frozenset[str]:
        matcher = {"[": _CLASS, "\\": _ESCAPE}.get(self.text[self.at])
        found = matcher.match(self.text, self.at) if matcher else None
        atom = found.group() if found else self.text[self.at]
        self.at += len(atom)
        if re.fullmatch(r"\\[1-9]\d?", atom):
            raise UnsafeRegex(f"back reference {atom} is not accepted")
        if atom in _ZERO_WIDTH:
            return frozenset()
        compiled = re.compile(atom, self.flags)
        literal = {atom} if len(atom) == 1 and atom != "." else set()
        return frozenset(literal | {probe for probe in _PROBES if compiled.fullmatch(probe)})

    def _repetition(self) -> tuple[int, int]:
        found = _QUANTIFIER.match(self.text, self.at)
        if found is None or found.group() == "{}" or (found.group(1) is None and not (found[2] or found[4])):
            return 1, 1
        self.at = found.end()
        if found.group(1):
            return {"*": (0, _MANY), "+": (1, _MANY), "?": (0, 1)}[found.group(1)]
        least = int(found.group(2) or 0)
        if not found.group(3):
            return least, least
        return least, int(found.group(4)) if found.group(4) else _MANY


def _first(sequence: tuple[_Item, ...]) -> frozenset[str]:
    """Characters that a sequence may begin with; everything when it may be empty."""
    chars: frozenset[str] = frozenset()
    for item in sequence:
        chars |= item.chars
        if item.least > 0:
            return chars
    return frozenset(_PROBES)


def _check_sequence(sequence: tuple[_Item, ...]) -> None:
    for item in sequence:
        if item.branches and item.repeats:
            _check_repeated_group(item)
        for branch in item.branches:
            _check_sequence(branch)
    _check_chain(sequence)


def _check_repeated_group(group: _Item) -> None:
    inner = _varying(group.branches)
    if inner is not None:
        raise UnsafeRegex(
            f"{group.text!r} repeats {inner!r}, which itself repeats or is optional: a name that does not match could "
            "take exponential time; repeat a single character class instead, such as [a-z_]+"
        )
    if _choices(group.branches) > 1:
        raise UnsafeRegex(
            f"{group.text!r} repeats alternatives that can begin with the same character: a name that does not match "
            "could take exponential time; make the alternatives begin differently, or drop the repetition"
        )


def _choices(branches: tuple[tuple[_Item, ...], ...]) -> int:
    """How many ways there are to choose among optional parts and alternatives that can begin alike."""
    alike = any(_first(one) & _first(other) for one, other in combinations(branches, 2))
    choices = len(branches) if alike else 1
    for item in (item for branch in branches for item in branch):
        choices *= _choices(item.branches) * (2 if item.varies and not item.repeats else 1)
    return choices


def _varying(branches: tuple[tuple[_Item, ...], ...]) -> str | None:
    for branch in branches:
        for item in branch:
            if item.varies:
                return item.text
            inner = _varying(item.branches)
            if inner is not None:
                return inner
    return None


def _check_chain(sequence: tuple[_Item, ...]) -> None:
    """Count repetitions that can take characters from each other; one mandatory foreign character ends a chain."""
    chain: list[_Item] = []
    for item in _flattened(sequence):
        if item.repeats and item.varies:
            chain.append(item)
            if len(chain) > _LONGEST_CHAIN:
                raise UnsafeRegex(
                    f"{''.join(one.text for one in chain)!r}: more than {_LONGEST_CHAIN} repetitions that can match "
                    "the same characters; put a character between them that they exclude, such as [^.]*\\."
                )
        elif item.least > 0 and not any(item.alphabet & one.alphabet for one in chain):
            chain = []


def _flattened(sequence: tuple[_Item, ...]) -> list[_Item]:
    """The items in order, groups opened; alternatives in a row, which can only overstate a chain."""
    items: list[_Item] = []
    for item in sequence:
        if not item.branches or (item.repeats and item.varies):
            items.append(item)
        elif len(item.branches) == 1 and item.least > 0:
            items.extend(_flattened(item.branches[0]))
        else:
            items.extend(inner for branch in item.branches for inner in _flattened(branch) if inner.varies)
    return items
