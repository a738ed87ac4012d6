"""Table patterns: what they match, how narrow they are, and which regexes are refused."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_floe.policies.patterns import InvalidPattern, TablePattern
from airflow_provider_floe.tables import TableRef


class Watchdog:
    """Raises TimeoutError in the main thread; ``re`` looks for signals while it matches."""

    def arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 30)


@pytest.fixture(scope="module")
def watchdog() -> Iterator[Watchdog]:
    def bark(*_: object) -> None:
        raise TimeoutError("the regex did not come back within 30 seconds")

    before = signal.signal(signal.SIGALRM, bark)
    yield Watchdog()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


NAMES = st.text("ab_*?.`/", min_size=1, max_size=4)
PLAIN = st.text("ab", min_size=1, max_size=3)
TABLES = st.builds(TableRef, PLAIN, st.lists(PLAIN, min_size=1, max_size=3).map(tuple), PLAIN)
GLOBS = st.text("ab*?", min_size=1, max_size=5).filter(lambda part: part != "**")
PATTERNS = st.one_of(
    st.lists(st.one_of(PLAIN, GLOBS), min_size=1, max_size=5).map(".".join),
    st.builds(
        lambda catalog, levels, table: ".".join((catalog, *levels, table)),
        GLOBS,
        st.lists(st.one_of(GLOBS, st.just("**")), min_size=1, max_size=3),
        st.one_of(GLOBS, st.just("**")),
    ),
    GLOBS.map(lambda glob: "/" + glob.replace("*", "[ab.]*").replace("?", ".") + "/"),
)


@pytest.mark.parametrize(
    ("pattern", "table", "expected"),
    [
        ("*", "lake.a.b.t", True),
        ("**", "lake.a.t", True),
        ("lake.*.*", "lake.sales.orders", True),
        ("lake.*.*", "lake.ops.audit.log", True),
        ("lake.*.*", "pond.sales.orders", False),
        ("lake.ops.*", "lake.ops.log", True),
        ("lake.ops.*", "lake.ops.audit.log", False),
        ("lake.ops.**", "lake.ops.audit.log", True),
        ("lake.ops.**", "lake.ops.log", True),
        ("lake.ops.**", "lake.opsx.log", False),
        ("lake.ops.audit.*", "lake.ops.audit.log", True),
        ("lake.ops.audit.log", "lake.ops.audit.log", True),
        ("lake.ops.*.log", "lake.ops.audit.log", True),
        ("lake.ops.*.log", "lake.ops.a.b.log", False),
        ("lake.**.audit.*", "lake.audit.log", True),
        ("lake.**.audit.*", "lake.a.b.audit.log", True),
        ("lake.**.audit.*", "lake.a.b.log", False),
        ("orders", "pond.a.b.orders", True),
        ("sales.orders", "pond.sales.orders", True),
        ("sales.orders", "pond.eu.sales.orders", False),
        ("sales.*", "pond.sales.x", True),
        ("l*.s?les.*_v?", "lake.sales.orders_v2", True),
        ("l*.s?les.*_v?", "lake.sales.orders_v22", False),
        ("lake.sales.a*bb", "lake.sales.abbb", True),
        ("lake.sales.*aba*", "lake.sales.ababa", True),
        ("lake.sales.Orders", "lake.sales.orders", False),
        (r"/lake\..*_raw/", "lake.a.b.clicks_raw", True),
        (r"/lake\..*_raw/", "lake.a.clicks_raw2", False),
        (r"lake.*./raw_\d+/", "lake.a.b.raw_12", True),
        (r"lake.*./raw_\d+/", "lake.a.raw_12b", False),
        (r"/(prod|dev)/.sales.*", "dev.sales.x", True),
        (r"/(?!lake\.tmp\.).*/", "lake.tmp.x", False),
        (r"/(?!lake\.tmp\.).*/", "lake.sales.x", True),
        ("lake.`odd.name`.*", "lake.`odd.name`.t", True),
        ("lake.`a*`.*", "lake.a*.t", True),
        ("lake.`a*`.*", "lake.ab.t", False),
    ],
)
def test_matches(pattern: str, table: str, expected: bool) -> None:
    assert TablePattern.parse(pattern).matches(TableRef.parse(table)) is expected


@pytest.mark.parametrize(
    ("pattern", "specificity"),
    [
        ("*", 0),
        ("lake.*.*", 100),
        ("lake.sales.*", 110),
        ("lake.ops.audit.log", 111),
        ("l*.*.*", 50),
        ("lake.s*.*", 105),
        ("lake.sales.**", 105),
        ("lake.sales.o*", 110),
        ("sales.orders", 11),
        ("orders", 1),
        ("/lake.*/", 55),
    ],
)
def test_specificity_of_the_documented_forms(pattern: str, specificity: int) -> None:
    assert TablePattern.parse(pattern).specificity == specificity


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a..b", "a part is empty"),
        ("lake.**", r"lake\.\*\.\*"),
        ("**.a.b", "a catalog has one part"),
        ("/lake", "not closed"),
        ("`lake.a.b", "not closed"),
        ("la`ke`.a.b", "backquotes"),
        ("lake. a.b", "backquotes"),
        ("/a/b/", r"write \\/"),
        ("/a(b/", "unterminated subpattern"),
        ("//", "a regex is empty"),
        ("x" * 257, "at most 256"),
        ("/" + "x" * 129 + "/", "at most 128"),
        ("/(a+)+/", "repeats 'a\\+'"),
        ("/(a|ab)*/", "begin with the same character"),
        ("/(c(a|a))*/", "begin with the same character"),
        (r"/(\w|\d)+x/", "begin with the same character"),
        ("/(x{1,20}){1,20}/", "repeats"),
        ("/.*a.*b.*c.*d/", "more than 3 repetitions"),
        ("/" + "a?" * 25 + "a" * 25 + "/", "33554432 ways"),
        (r"/(a)\1/", "back reference"),
        ("/(?<=a)b/", "only"),
    ],
)
def test_refuses_with_a_reason(pattern: str, says: str) -> None:
    with pytest.raises(InvalidPattern, match=says):
        TablePattern.parse(pattern)


@pytest.mark.parametrize(
    "expression",
    [
        r"(prod|preprod)\.(raw|refined)\.[a-z_]+_v\d+",
        r"[^.]+\.[^.]+\.[^.]+\.[^.]+\.[^.]+",
        "(foo|bar)+x",
        "(?i)lake.*",
        r"a{3}b{2,}[]x-z]",
        r"lake\.(?P<namespace>\w+)\.t",
    ],
)
def test_accepts_ordinary_regexes(expression: str) -> None:
    assert TablePattern.parse(f"/{expression}/").specificity == 55


@pytest.mark.property
@given(PATTERNS, TABLES)
def test_pruning_never_hides_a_match(text: str, table: TableRef) -> None:
    try:
        pattern = TablePattern.parse(text)
    except InvalidPattern:
        return
    if pattern.matches(table):
        assert pattern.may_match_catalog(table.catalog)
        assert pattern.may_match_namespace(table.catalog, table.namespace)
        assert pattern.exact_catalog in (None, table.catalog)
        assert pattern.may_overlap(TablePattern.parse(str(table)))
        assert pattern.matches_within_namespace(table)


@pytest.mark.property
@given(PATTERNS, PATTERNS, TABLES)
def test_patterns_that_share_a_table_overlap(one: str, other: str, table: TableRef) -> None:
    try:
        left, right = TablePattern.parse(one), TablePattern.parse(other)
    except InvalidPattern:
        return
    assert left.may_overlap(right) == right.may_overlap(left)
    if left.matches(table) and right.matches(table):
        assert left.may_overlap(right)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lake.sales.*", "lake.web.*"),
        ("lake.*.a*", "lake.*.b*"),
        ("lake.sales.*", "lake.sales.eu.*"),
        ("lake.a.**", "lake.b.**"),
        ("x*.a.b", "y*.a.b"),
        ("lake.?.t", "lake.??.t"),
    ],
)
def test_patterns_without_a_common_table_do_not_overlap(one: str, other: str) -> None:
    assert not TablePattern.parse(one).may_overlap(TablePattern.parse(other))


@pytest.mark.property
@given(GLOBS, st.text("ab", max_size=8))
def test_a_glob_is_what_its_regex_would_be(glob: str, name: str) -> None:
    if not name:
        return
    expected = re.fullmatch(glob.replace("*", ".*").replace("?", "."), name) is not None
    assert TablePattern.parse(f"c.n.{glob}").matches(TableRef("c", ("n",), name)) is expected


@pytest.mark.property
@given(st.builds(TableRef, NAMES, st.lists(NAMES, min_size=1, max_size=3).map(tuple), NAMES))
def test_every_table_can_be_named_exactly(table: TableRef) -> None:
    quoted = ".".join("`" + part.replace("`", "``") + "`" for part in (table.catalog, *table.identifier))
    pattern = TablePattern.parse(quoted)
    assert pattern.matches(table)
    assert pattern.specificity == 111


@pytest.mark.property
@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        pattern = TablePattern.parse(text)
    except InvalidPattern:
        return
    assert pattern.explain()


@pytest.mark.property
@settings(deadline=None)
@given(
    expression=st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", r"\w", r"\.", "ab"]),
        lambda inner: st.one_of(
            st.builds("({})".format, inner),
            st.builds("({}|{})".format, inner, inner),
            st.builds("{}{}".format, inner, inner),
            st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2,}", "{3}", "{1,9}"])),
        ),
        max_leaves=12,
    )
)
def test_a_regex_that_is_accepted_comes_back(watchdog: Watchdog, expression: str) -> None:
    """An exponential one would not come back from the worst names, so a watchdog ends it."""
    try:
        pattern = TablePattern.parse(rf"/c\.n\.({expression})/")
    except InvalidPattern:
        return
    watchdog.arm()
    for name in ("a" * 60 + "!", "ab" * 30 + "!", "b" * 60 + "!", "a" * 60 + "b!"):
        assert not pattern.matches(TableRef("c", ("n",), name)) or "." in expression
