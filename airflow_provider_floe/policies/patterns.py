"""Table patterns: which tables a policy is about.

=====================  ====================================================================================
pattern                tables
=====================  ====================================================================================
``*``                  all
``lake.*.*``           all of catalog ``lake``, in namespaces of any depth
``lake.sales.*``       directly in namespace ``sales``; not in ``sales.eu``
``lake.sales.**``      in ``sales`` and in every namespace below it
``lake.ops.audit.*``   directly in the nested namespace ``ops.audit``
``lake.ops.*.events``  table ``events`` in every namespace exactly one level below ``ops``
``sales.orders``       ``orders`` in ``sales`` of any catalog
``orders``             ``orders`` in any namespace of any catalog
``/lake\\..*_raw/``    whose whole dotted name the regex matches from end to end
``lake.*./raw_\\d+/``  whose table name the regex matches from end to end
=====================  ====================================================================================

In any part ``*`` stands for any characters and ``?`` for one, within that part. As a namespace level ``**`` stands for
any number of levels, none included; a namespace that is ``*`` alone means the same. A part in backquotes is taken as it
is, so it may hold dots and stars. Names are compared with case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from airflow_provider_floe.errors import InvalidPolicy
from airflow_provider_floe.policies.regex_safety import UnsafeRegex, refuse_unsafe
from airflow_provider_floe.tables import TableRef

MAX_PATTERN_LENGTH = 256
MAX_REGEX_LENGTH = 128


class InvalidPattern(InvalidPolicy):
    """Text that should be a table pattern is not."""


class _Kind(Enum):
    ANY = "any"
    EXACT = "exact"
    GLOB = "glob"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class _Part:
    """One part; ``text`` as compared: the name, the glob, or the regex without its slashes. ``deep`` is ``**``."""

    kind: _Kind
    text: str
    deep: bool = False
    compiled: re.Pattern[str] | None = field(default=None, compare=False, repr=False)

    def matches(self, name: str) -> bool:
        if self.compiled is not None:
            return self.compiled.fullmatch(name) is not None
        return self.kind is _Kind.ANY or self.text == name

    def may_overlap(self, other: _Part) -> bool:
        """Whether some name may match both; never a false negative."""
        if self.kind is _Kind.EXACT:
            return other.matches(self.text)
        if other.kind is _Kind.EXACT:
            return self.matches(other.text)
        if _Kind.GLOB is self.kind is other.kind:
            return _globs_meet(self.text, other.text)
        return True

    def explain(self, what: str) -> str:
        if self.kind is _Kind.ANY:
            return f"any {what}"
        if self.kind is _Kind.EXACT:
            return f"{what} {self.text!r}"
        return f"{what} like {self.text!r}" if self.kind is _Kind.GLOB else f"{what} matching /{self.text}/"


_ANYTHING = _Part(_Kind.ANY, "*")
_ANY_DEPTH = _Part(_Kind.ANY, "**", deep=True)


@dataclass(frozen=True, slots=True)
class TablePattern:
    """A parsed pattern. Two patterns are equal when their texts are.

    :ivar text: as written.
    """

    text: str
    _catalog: _Part = field(compare=False, repr=False)
    _levels: tuple[_Part, ...] = field(compare=False, repr=False)
    _table: _Part = field(compare=False, repr=False)
    _whole: _Part | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> TablePattern:
        """Read a pattern.

        :raises InvalidPattern: saying what is wrong with it and how to write it.
        """
        return _parse(text)

    def matches(self, table: TableRef) -> bool:
        """Whether the pattern is about this table."""
        return self.may_match_namespace(table.catalog, table.namespace) and self.matches_within_namespace(table)

    @property
    def specificity(self) -> int:
        """How narrow the pattern is: catalog 100, 50 or 0, namespace 10, 5 or 0, table 1 or 0 (exact, glob, any).

        A regex over the whole name counts as a glob in catalog and namespace: 55.
        """
        if self._whole is not None:
            return 55
        catalog = {_Kind.EXACT: 100, _Kind.ANY: 0}.get(self._catalog.kind, 50)
        if all(level.kind is _Kind.EXACT for level in self._levels):
            namespace = 10
        else:
            namespace = 0 if self._levels == (_ANY_DEPTH,) else 5
        return catalog + namespace + (1 if self._table.kind is _Kind.EXACT else 0)

    @property
    def exact_catalog(self) -> str | None:
        """The only catalog the pattern can match, when there is just one."""
        return self._catalog.text if self._catalog.kind is _Kind.EXACT else None

    def may_match_catalog(self, name: str) -> bool:
        """False only when no table of the catalog can match."""
        return self._whole is not None or self._catalog.matches(name)

    def may_match_namespace(self, catalog: str, namespace: Sequence[str]) -> bool:
        """False only when no table directly in the namespace can match."""
        if self._whole is not None:
            return True
        return self._catalog.matches(catalog) and _levels_match(self._levels, tuple(namespace))

    def matches_within_namespace(self, table: TableRef) -> bool:
        """:meth:`matches`, once :meth:`may_match_namespace` has said yes for the table's namespace."""
        return self._table.matches(table.name) if self._whole is None else self._whole.matches(str(table))

    def may_overlap(self, other: TablePattern) -> bool:
        """False only when no table can match both patterns."""
        if self._whole is not None or other._whole is not None:
            return True
        return (
            self._catalog.may_overlap(other._catalog)
            and self._table.may_overlap(other._table)
            and _levels_may_overlap(self._levels, other._levels)
        )

    def explain(self) -> str:
        """The pattern in words."""
        if self._whole is not None:
            return f"every table whose dotted name matches /{self._whole.text}/ from end to end"
        if self._levels == (_ANY_DEPTH,):
            namespace = "any namespace"
        elif self._levels[-1].deep:
            namespace = f"namespace {_dotted(self._levels[:-1])} and those below it"
        else:
            namespace = f"namespace {_dotted(self._levels)}"
        return f"{self._table.explain('table')} in {namespace} of {self._catalog.explain('catalog')}"


@lru_cache(maxsize=8192)
def _parse(text: str) -> TablePattern:
    if len(text) > MAX_PATTERN_LENGTH:
        raise InvalidPattern(f"the pattern has {len(text)} characters; at most {MAX_PATTERN_LENGTH} are allowed")
    parts = [_part(raw, text) for raw in _split(text)]
    if len(parts) == 1 and parts[0].kind is _Kind.REGEX:
        return TablePattern(text, _ANYTHING, (_ANY_DEPTH,), _ANYTHING, _whole=parts[0])
    if parts[0].deep and len(parts) > 2:
        raise InvalidPattern(f"{text!r}: a catalog has one part: write * instead of **")
    if parts[-1].deep:
        if len(parts) == 2:
            raise InvalidPattern(
                f"{text!r} could mean a catalog or a namespace: write {_raw(text, 0)}.*.* for a whole catalog, or "
                f"*.{_raw(text, 0)}.** for a namespace and those below it in any catalog"
            )
        parts = [*parts, _ANYTHING] if len(parts) > 2 else [_ANYTHING]
    table = parts[-1]
    catalog = parts[0] if len(parts) > 2 else _ANYTHING
    levels = tuple(parts[1:-1] if len(parts) > 2 else parts[:-1])
    if not levels or levels in ((_ANYTHING,), (_ANY_DEPTH,)):
        levels = (_ANY_DEPTH,)
    return TablePattern(text, catalog, levels, table)


def _raw(text: str, index: int) -> str:
    return _split(text)[index]


def _split(text: str) -> list[str]:
    """Cut at dots outside backquotes and slashes; quotes and slashes stay on their part."""
    parts: list[str] = []
    at = 0
    while True:
        end = _end_of_part(text, at)
        parts.append(text[at:end])
        if end == len(text):
            return parts
        if text[end] != ".":
            raise InvalidPattern(
                f"{text!r}: {text[at:end]!r} must be a whole part, but {text[end:]!r} follows; inside a regex write \\/"
            )
        at = end + 1


def _end_of_part(text: str, at: int) -> int:
    if text.startswith("/", at):
        closing = re.compile(r"/(?:\\.|[^/\\])*/", re.DOTALL).match(text, at)
        if closing is None:
            raise InvalidPattern(f"{text!r}: the regex that begins with {text[at : at + 12]!r} is not closed by /")
        return closing.end()
    if text.startswith("`", at):
        closing = re.compile(r"`(?:``|[^`])*`").match(text, at)
        if closing is None:
            raise InvalidPattern(f"{text!r}: a backquote is not closed")
        return closing.end()
    dot = text.find(".", at)
    return len(text) if dot < 0 else dot


def _part(raw: str, text: str) -> _Part:
    if raw.startswith("/"):
        return _regex(raw[1:-1].replace("\\/", "/"), text)
    if raw.startswith("`"):
        raw = raw[1:-1].replace("``", "`")
        if raw:
            return _Part(_Kind.EXACT, raw)
    if not raw:
        raise InvalidPattern(f"{text!r}: a part is empty; write * for any name")
    if "`" in raw or raw != raw.strip():
        raise InvalidPattern(
            f"{text!r}: put the whole part {raw!r} in backquotes, or remove its quotes and outer spaces"
        )
    if raw in ("*", "**"):
        return _ANYTHING if raw == "*" else _ANY_DEPTH
    if "*" in raw or "?" in raw:
        return _glob(raw)
    return _Part(_Kind.EXACT, raw)


def _glob(raw: str) -> _Part:
    """A glob as a regex whose stars never give back what they took, so it runs in linear time."""
    glob = re.sub(r"\*+", "*", raw)
    first, *rest = (re.escape(piece).replace(r"\?", ".") for piece in glob.split("*"))
    if not rest:
        return _Part(_Kind.GLOB, glob, compiled=re.compile(first, re.DOTALL))
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return _Part(_Kind.GLOB, glob, compiled=re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL))


def _regex(expression: str, text: str) -> _Part:
    if not expression:
        raise InvalidPattern(f"{text!r}: a regex is empty; write * for any name")
    if len(expression) > MAX_REGEX_LENGTH:
        raise InvalidPattern(
            f"{text!r}: a regex has {len(expression)} characters; at most {MAX_REGEX_LENGTH} are allowed"
        )
    try:
        refuse_unsafe(expression)
        return _Part(_Kind.REGEX, expression, compiled=re.compile(expression))
    except UnsafeRegex as error:
        raise InvalidPattern(f"the regex /{expression}/ is refused: {error}") from None
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidPattern(f"/{expression}/ is not a regex of Python's re: {error}") from None


def _levels_match(levels: tuple[_Part, ...], namespace: tuple[str, ...]) -> bool:
    if levels[0].deep:
        return len(levels) == 1 or any(
            _levels_match(levels[1:], namespace[skip:]) for skip in range(len(namespace) + 1)
        )
    if not namespace or not levels[0].matches(namespace[0]):
        return False
    return _levels_match(levels[1:], namespace[1:]) if len(levels) > 1 else len(namespace) == 1


def _levels_may_overlap(one: tuple[_Part, ...], other: tuple[_Part, ...]) -> bool:
    if not one or not other:
        return all(level.deep for level in one or other)
    if one[0].deep or other[0].deep:
        return (
            (one[0].deep and _levels_may_overlap(one[1:], other))
            or (other[0].deep and _levels_may_overlap(one, other[1:]))
            or (not (one[0].deep and other[0].deep) and _deep_takes_one(one, other))
        )
    return one[0].may_overlap(other[0]) and _levels_may_overlap(one[1:], other[1:])


def _deep_takes_one(one: tuple[_Part, ...], other: tuple[_Part, ...]) -> bool:
    return _levels_may_overlap(one, other[1:]) if one[0].deep else _levels_may_overlap(one[1:], other)


def _globs_meet(one: str, other: str) -> bool:
    """Whether some text matches both globs: reachable pairs of positions."""
    seen: set[tuple[int, int]] = set()
    todo = [(0, 0)]
    while todo:
        a, b = todo.pop()
        if (a, b) in seen:
            continue
        seen.add((a, b))
        if a == len(one) and b == len(other):
            return True
        left, right = one[a : a + 1], other[b : b + 1]
        if left == "*":
            todo += [(a + 1, b)] + ([(a, b + 1)] if right else [])
        if right == "*":
            todo += [(a, b + 1)] + ([(a + 1, b)] if left else [])
        if left and right and "*" not in (left, right) and ("?" in (left, right) or left == right):
            todo.append((a + 1, b + 1))
    return False


def _dotted(levels: tuple[_Part, ...]) -> str:
    return repr(".".join(f"/{level.text}/" if level.kind is _Kind.REGEX else level.text for level in levels))
