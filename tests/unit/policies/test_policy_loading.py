"""Policy files: what is accepted, and what a refusal says."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.errors import ConfigurationError, InvalidPolicy, PolicyNotFound
from airflow_provider_floe.policies.loading import PolicySet, load_policies, load_text, parse_policy
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.policies.resolution import resolve, shadow_warnings
from airflow_provider_floe.policies.schedules import PolicyTicks
from airflow_provider_floe.tables import Operation, TableRef

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "policies"


def load(text: str, **options: Any) -> PolicySet:
    return load_text(dedent(text).lstrip("\n"), "f.yaml", **options)


def complaints(text: str, **options: Any) -> list[str]:
    return [str(problem) for problem in load(text, **options).problems]


def names(found: PolicySet) -> list[str]:
    return [loaded.policy.name for loaded in found.policies]


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_every_shape_of_file_holds_policies_and_each_knows_its_line() -> None:
    found = load(
        """
        # a comment
        name: one
        tablePattern: lake.*.*
        ---
        - {name: two, tablePattern: "*"}
        - name: three
          table_pattern: "*"
        ---
        policies:
          - name: four
            tablePattern: "*"
        ---
        # an empty document
        """
    )
    assert not found.problems
    assert [(loaded.policy.name, loaded.source) for loaded in found.policies] == [
        ("four", "f.yaml:10"),
        ("one", "f.yaml:2"),
        ("three", "f.yaml:6"),
        ("two", "f.yaml:5"),
    ]


def test_json_is_read_as_json() -> None:
    policy = {"name": "a", "tablePattern": "*", "description": "tab \t, emoji \U0001f600, yes", "priority": 10}
    for document in (policy, [policy], {"policies": [policy]}):
        found = load_text(json.dumps(document, indent="\t"), "f.json", json=True)
        assert not found.problems
        assert found.all == (Policy.model_validate(policy),)
    (problem,) = load_text('{\n"name": "a",\n"tablePattern": \n}', "f.json", json=True).problems
    assert (problem.source, problem.problem.reason[:8]) == ("f.json:4", "not JSON")
    problems = load_text('{"name": "a",\n "name": "b", "tablePattern": "*"}', "f.json", json=True).problems
    assert [str(problem) for problem in problems] == [
        "f.json:2: policy 'a': name: stands twice, first in line 1; remove one of them"
    ]


def test_snake_case_means_the_same_as_camel_case() -> None:
    snake = """
        name: a
        table_pattern: lake.*.*
        rewrite_data_files: {strategy: SORT, sort_order: [ts], trigger_conditions: {min_interval_minutes: 5}}
        rewrite_data_files_schedule: {cron_expression: 0 3 * * *, window_start: 22:30, window_end: "04:00"}
        trigger_conditions: {per_operation_min_interval_minutes: {orphanCleanup: 5, expire_snapshots: 6}}
        health_thresholds: {small_file_size_bytes: 1000}
        """
    camel = """
        name: a
        tablePattern: lake.*.*
        rewriteDataFiles: {strategy: SORT, sortOrder: [ts], triggerConditions: {minIntervalMinutes: 5}}
        rewriteDataFilesSchedule: {cronExpression: 0 3 * * *, windowStart: "22:30", windowEnd: "04:00"}
        triggerConditions: {perOperationMinIntervalMinutes: {remove_orphan_files: 5, expireSnapshots: 6}}
        healthThresholds: {smallFileSizeBytes: 1000}
        """
    assert load(snake).all == load(camel).all != ()


def test_yaml_merges_and_dates_as_people_mean_them() -> None:
    found = load(
        """
        - &base
          name: a
          tablePattern: "*"
          tags: {since: 2024-01-31}
          expireSnapshots: &keep {retainLast: 7}
        - <<: *base
          name: b
          expireSnapshots: {<<: *keep, cleanExpiredMetadata: true}
        """
    )
    assert not found.problems
    first, second = found.all
    assert second.tags == first.tags == {"since": "2024-01-31"}
    assert second.expire_snapshots is not None
    assert (second.expire_snapshots.retain_last, second.expire_snapshots.clean_expired_metadata) == (7, True)


# --- what a refusal says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("expireSnapshot: {}", "expireSnapshot: unknown field; did you mean 'expireSnapshots'?"),
        ("table_patern: x", "table_patern = 'x': unknown field; did you mean 'table_pattern'?"),
        ("colour: red", "colour = 'red': unknown field"),
        (
            "engine: sprak",
            "engine = 'sprak': is not an engine: use one of auto, local, spark, trino; did you mean 'spark'?",
        ),
        ("rewriteDataFiles: {engine: duck}", "rewriteDataFiles.engine = 'duck': is not an engine"),
        (
            "rewriteDataFiles: {strategy: binpak}",
            "rewriteDataFiles.strategy = 'binpak': must be one of BINPACK, SORT, ZORDER; did you mean 'BINPACK'?",
        ),
        ("rewriteDataFiles: {strategy: ZORDER}", "rewriteDataFiles: strategy ZORDER needs zOrderColumns"),
        ("rewriteDataFiles: 5", "rewriteDataFiles = 5: must be a mapping of fields"),
        ("expireSnapshots: {maxSnapshotAge: 7 days}", "'7 days': is not an ISO-8601 duration such as P7D or PT6H"),
        (
            "expireSnapshots: {retainLast: yes}",
            "expireSnapshots.retainLast = True: input should be a valid integer (YAML",
        ),
        ("expireSnapshots: {retainLast: '5'}", "expireSnapshots.retainLast = '5': input should be a valid integer"),
        ("enabled: 1", "enabled = 1: input should be a valid boolean"),
        ("tags: {cost: 5}", "tags.cost = 5: must be text: put it in quotes"),
        (
            "triggerConditions: {smallFilePercentageAbove: .nan}",
            "smallFilePercentageAbove = nan: input should be a finite",
        ),
        (
            "healthThresholds: {fileCountWarning: 5, fileCountCritical: 4}",
            "healthThresholds: fileCountWarning (5) must not be above fileCountCritical (4)",
        ),
        (
            "triggerConditions: {perOperationMinIntervalMinutes: {expireSnapshot: 5}}",
            "perOperationMinIntervalMinutes.expireSnapshot = 5: unknown operation; did you mean 'expireSnapshots'?",
        ),
        (
            "triggerConditions: {perOperationMinIntervalMinutes: {orphanCleanup: 5, remove_orphan_files: 6}}",
            "remove_orphan_files = 6: stands twice, as orphanCleanup and as remove_orphan_files: remove one of them",
        ),
        ("table_pattern: x", "table_pattern = 'x': stands twice, as tablePattern and as table_pattern"),
        ("rewriteManifests: {specId: 1, specId: 2}", "rewriteManifests.specId: stands twice, first in line 3"),
        ("on: true", "the key True is not text: put it in quotes"),
        ("expireSnapshotsSchedule: {timezone: Europe/Zurch, interval: 1}", "did you mean 'Europe/Zurich'?"),
        ("expireSnapshotsSchedule: {cronExpression: 0 0 L * *}", "L (last) is a Quartz extension"),
        (
            "expireSnapshotsSchedule: {interval: 1, cronExpression: nonsense}",
            "cronExpression = 'nonsense': it has 1 fields",
        ),
        ("expireSnapshotsSchedule: {allowedDays: 'MON,TUSDAY', interval: 1}", "'TUSDAY' is not a day"),
        ("expireSnapshotsSchedule: {windowStart: '25:00', interval: 1}", "'25:00': is not a time of day as HH:mm"),
        ("expireSnapshotsSchedule: {windowStart: yes, interval: 1}", "windowStart = True: is not a time of day"),
        ("expireSnapshotsSchedule: {interval: 0}", "interval = 0: must be at least one day"),
        ("expireSnapshotsSchedule: {interval: 99999999999999999999}", "days are too long"),
        ("description: !!python/name:os.system x", "cannot be read as tag:yaml.org,2002:python/name:os.system"),
        ("tags: !custom {a: b}", "tags: the tag !custom is not accepted"),
    ],
)
def test_a_bad_field_is_refused_with_line_field_value_and_the_nearest_name(line: str, says: str) -> None:
    text = f"name: a\ntablePattern: lake.*.*\n{line}\n---\nname: good\ntablePattern: '*'\n"
    found = load_text(text, "f.yaml", engines=["local", "spark", "trino"])
    assert names(found) == ["good"]
    (problem,) = found.problems
    assert says in str(problem)
    assert str(problem).startswith("f.yaml:3: policy 'a': ")


def test_all_problems_of_a_document_are_reported_at_their_lines() -> None:
    assert complaints(
        """
        name: a
        rewrite_data_files:
          strategy: BINPACK
          target_file_size_byte: 5
          max_concurrent_file_group_rewrites: 0
        rewrite_manifests:
          rewrite_if:
            partition_summaries:
              - lower_bound: x
              - lower_bound: 3
        """
    ) == [
        "f.yaml:1: policy 'a': tablePattern: is missing",
        "f.yaml:4: policy 'a': rewriteDataFiles.target_file_size_byte = 5: unknown field; "
        "did you mean 'target_file_size_bytes'?",
        "f.yaml:5: policy 'a': rewriteDataFiles.maxConcurrentFileGroupRewrites = 0: input should be greater than 0",
        "f.yaml:10: policy 'a': rewriteManifests.rewriteIf.partitionSummaries[1].lowerBound = 3: must be text: "
        "put it in quotes",
    ]


def test_a_syntax_error_spares_the_documents_before_it() -> None:
    found = load("name: a\ntablePattern: '*'\n---\nname: b\n  bad: indent\n")
    assert names(found) == ["a"]
    (problem,) = found.problems
    assert (problem.line, problem.problem.reason[:8]) == (5, "not YAML")


def test_what_is_no_policy_is_refused() -> None:
    assert complaints("- 3\n- [a]\n- null\n") == [
        f"f.yaml:{line}: document{value}: a policy must be a mapping with at least name and tablePattern"
        for line, value in ((1, " = 3"), (2, ""), (3, ""))
    ]
    assert complaints("policies: 3\nother: 4\n") == [
        "f.yaml:1: policies = 3: must be a list of policies",
        "f.yaml:2: other = 4: unknown field beside 'policies'",
    ]
    assert complaints("policies:\n") == []


def test_two_policies_of_one_name_are_both_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{name: twin, tablePattern: x}")
    (tmp_path / "b.json").write_text(
        '[{"name": "single", "tablePattern": "x"},\n {"name": "twin", "tablePattern": "y"}]'
    )
    found = load_policies([tmp_path])
    assert names(found) == ["single"]
    first, second = map(str, found.problems)
    assert first.startswith(f"{tmp_path}/a.yaml:1: policy 'twin': name = 'twin': another policy has this name, in ")
    assert f"{tmp_path}/b.json:2; both are refused" in first
    assert f"{tmp_path}/a.yaml:1; both are refused" in second


def test_hostile_text_is_refused_without_harm() -> None:
    doubling = "".join(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]\n" for number in range(1, 40))
    assert any("too large" in text for text in complaints("a0: &a0 [x]\n" + doubling))
    assert "nested deeper" in complaints("[" * 100_000)[0]
    assert "not JSON" in str(load_text("[" * 100_000, "f.json", json=True).problems[0])
    assert any("contains it" in text for text in complaints("a: &a [*a]\n"))
    assert any("not defined" in text for text in complaints("a: *b\n"))


# --- files -----------------------------------------------------------------------------------------------------------


def test_folders_are_walked_in_order_and_files_read_once(tmp_path: Path) -> None:
    for path in ("b.yml", "a/z.yaml", "a/y.json", "a/notes.txt", ".hidden.yaml", "..data/a.yaml"):
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        name = path.replace("/", "-").replace("..", "").lstrip(".")
        file.write_text(json.dumps({"name": name, "tablePattern": "*"}))
    found = load_policies([tmp_path, tmp_path / "b.yml"])
    assert not found.problems
    assert names(found) == ["a-y.json", "a-z.yaml", "b.yml"]
    assert found == load_policies([tmp_path / "b.yml", tmp_path / "a", tmp_path])


def test_unreadable_files_are_problems_and_missing_paths_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"name: \xff\xfe")
    (tmp_path / "b.yaml").write_text("\ufeff{name: b, tablePattern: '*'}")
    (tmp_path / "c.yaml").symlink_to(tmp_path / "gone.yaml")
    found = load_policies([tmp_path])
    assert names(found) == ["b"]
    assert [problem.file for problem in found.problems] == [str(tmp_path / "a.yaml"), str(tmp_path / "c.yaml")]
    with pytest.raises(ConfigurationError, match="nowhere does not exist"):
        load_policies([tmp_path / "nowhere"])


def test_a_policy_set_is_asked_by_name() -> None:
    found = load("- {name: sales, tablePattern: '*'}\n- {name: web, tablePattern: a..b}\n")
    assert found.named("sales").policy.table_pattern == "*"
    with pytest.raises(PolicyNotFound, match="did you mean 'sales'"):
        found.named("sale")
    with pytest.raises(PolicyNotFound, match=r"'web' was refused: .*a part is empty"):
        found.named("web")


def test_what_has_no_effect_is_warned_of() -> None:
    found = load(
        """
        name: a
        tablePattern: "*"
        expireSnapshotsSchedule: {interval: 1}
        rewriteManifests: {}
        rewriteManifestsSchedule: {windowStart: "22:00"}
        rewriteDataFiles: {}
        rewriteDataFilesSchedule: {interval: 1, cronExpression: 0 3 * * *}
        """
    )
    assert names(found) == ["a"]
    assert [(warning.line, warning.problem.field) for warning in found.warnings] == [
        (3, "expireSnapshotsSchedule"),
        (5, "rewriteManifestsSchedule"),
        (7, "rewriteDataFilesSchedule.cronExpression"),
    ]


def test_a_policy_that_does_not_govern_what_it_seems_to_is_warned_of() -> None:
    found = load(
        """
        - name: empty
          tablePattern: "*"
          rewriteDataFiles:
        - name: nothing
          tablePattern: "*"
        """
    )
    assert names(found) == ["empty", "nothing"]
    empty, nothing = map(str, found.warnings)
    assert "rewriteDataFiles: is empty, so the policy does not govern the operation" in empty
    assert "policy 'nothing': document: governs nothing" in nothing


def test_a_decoded_document_is_a_policy_or_an_error() -> None:
    assert parse_policy({"name": "a", "table_pattern": "*"}) == Policy(name="a", table_pattern="*")
    with pytest.raises(
        InvalidPolicy, match=r"nam = 'a': unknown field; did you mean 'name'\?.*tablePattern: is missing"
    ):
        parse_policy({"nam": "a"})


# --- whatever the input ----------------------------------------------------------------------------------------------

KEYS = st.one_of(
    st.sampled_from(
        [
            "name",
            "tablePattern",
            "table_pattern",
            "policies",
            "rewriteDataFiles",
            "rewrite_data_files_schedule",
            "interval",
            "cronExpression",
            "windowStart",
            "timezone",
            "triggerConditions",
            "perOperationMinIntervalMinutes",
            "expireSnapshots",
            "maxSnapshotAge",
            "tags",
            "rewriteIf",
            "priority",
        ]
    ),
    st.text(max_size=5),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from(["P7D", "PT0S", "*", "lake.*.*", "0 3 * * *", "22:30", "Europe", "SORT", "/(a+)+/", "local"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)


def assert_answers_everything(found: PolicySet) -> None:
    for problem in found.problems:
        assert str(problem)
        assert problem.line >= 1
    assert names(found) == sorted(set(names(found)))
    for policy in found.all:
        PolicyTicks.of(policy, "UTC")
        resolve(found.all, TableRef.parse("lake.sales.orders"))
        assert Policy.model_validate(policy.wire()) == policy


@pytest.mark.property
@given(VALUES)
def test_no_document_makes_the_loader_fail(value: Any) -> None:
    assert_answers_everything(load_text(yaml.safe_dump(value, allow_unicode=True), "f.yaml"))
    assert_answers_everything(load_text(json.dumps(value, default=str), "f.json", json=True))


@pytest.mark.property
@given(
    st.text(st.sampled_from("name: tablePattern*'\"[]{}-&!<>|%@`#\n\t ,?0123456789:.ab\u2028\x00\ud800"), max_size=60)
)
def test_no_text_makes_the_loader_fail(text: str) -> None:
    assert_answers_everything(load_text(text, "f.yaml"))
    assert_answers_everything(load_text(text, "f.json", json=True))


@pytest.mark.property
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=8))
def test_a_bad_policy_takes_no_good_one_with_it(entries: list[tuple[str, bool]]) -> None:
    documents = [{"name": name, "tablePattern": "*" if good else "a..b"} for name, good in entries]
    good = [name for name, good in entries if good]
    expected = sorted(name for name in set(good) if good.count(name) == 1)
    assert names(load_text(yaml.safe_dump_all(documents), "f.yaml")) == expected
    assert names(load_text(yaml.safe_dump(documents), "f.yaml")) == expected


# --- the examples ----------------------------------------------------------------------------------------------------


def test_the_example_policies_load_and_govern_the_tables_they_speak_of() -> None:
    found = load_policies([EXAMPLES], engines=["local", "spark", "trino"])
    assert not found.problems
    assert not found.warnings
    assert not shadow_warnings(found.all)
    assert len(found.policies) >= 4

    def governor(table: str, operation: Operation) -> str | None:
        policy = resolve(found.all, TableRef.parse(table))[operation].policy
        return policy.name if policy else None

    assert governor("lake.sales.orders", Operation.REWRITE_DATA_FILES) == "sales-small-files"
    assert governor("lake.sales.orders", Operation.EXPIRE_SNAPSHOTS) == "lake-baseline"
    assert governor("lake.web.events", Operation.EXPIRE_SNAPSHOTS) == "web-events-critical"
    assert governor("lake.ops.audit.log", Operation.REMOVE_ORPHAN_FILES) == "audit-orphan-cleanup"
    assert governor("pond.sales.orders", Operation.EXPIRE_SNAPSHOTS) is None
