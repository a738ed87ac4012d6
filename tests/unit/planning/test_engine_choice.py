"""The engine: the one named, or the cheapest that can; a refusal says why and who could instead."""

from __future__ import annotations

from typing import Any

import pytest
from plan_builders import engine, policy, report

from airflow_provider_floe.engines.capabilities import OperationCapability
from airflow_provider_floe.engines.local.capabilities import local_capabilities
from airflow_provider_floe.planning.engine_choice import LOCAL_LIMIT_BYTES, EngineChoice, choose_engine
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.tables import Operation

REWRITE = Operation.REWRITE_DATA_FILES
NO_ZORDER = OperationCapability(refused={"strategy": "it has no z-order"})


def choose(
    *engines: Any,
    governor: Policy | None = None,
    size: int = 10,
    features: tuple[str, ...] = (),
    operation: Operation = REWRITE,
    **unavailable: str,
) -> EngineChoice:
    governor = governor or policy()
    settings = governor.settings(operation)
    assert settings is not None
    facts = report().facts.model_copy(update={"features": features})
    return choose_engine(
        operation, governor, settings, facts, size, {found.engine: found for found in engines}, unavailable
    )


@pytest.mark.parametrize(
    ("present", "size", "chosen"),
    [
        (["trino", "spark", "local"], LOCAL_LIMIT_BYTES, "local"),
        (["trino", "spark", "local"], LOCAL_LIMIT_BYTES + 1, "spark"),
        (["trino", "local"], LOCAL_LIMIT_BYTES + 1, "trino"),
        (["local"], LOCAL_LIMIT_BYTES + 1, "local"),
        (["theirs", "trino"], 10, "trino"),
        (["theirs"], 10, "theirs"),
    ],
)
def test_auto_takes_the_cheapest_engine_that_is_there(present: list[str], size: int, chosen: str) -> None:
    found = choose(*map(engine, present), size=size)
    assert found.engine == chosen
    assert found.reason.startswith("auto: ")
    assert not found.refusals


def test_auto_passes_over_an_engine_that_refuses_and_says_why() -> None:
    local = engine(
        rewrite_data_files=OperationCapability(refused_features={"equality-deletes": "it cannot apply them; use spark"})
    )
    found = choose(local, engine("spark"), features=("equality-deletes",))
    assert found.engine == "spark"
    assert "not local: table feature equality-deletes: it cannot apply them; use spark" in found.reason


def test_auto_prefers_an_engine_that_honours_every_setting_to_one_that_ignores_some() -> None:
    governor = policy(
        onUnsupportedSetting="ignore", rewriteDataFiles={"strategy": "ZORDER", "zOrderColumns": ["a", "b"]}
    )
    found = choose(engine(rewrite_data_files=NO_ZORDER), engine("spark"), governor=governor)
    assert (found.engine, found.ignored) == ("spark", ())
    alone = choose(engine(rewrite_data_files=NO_ZORDER), governor=governor)
    assert alone.engine == "local"
    assert alone.ignored == ("setting strategy='ZORDER': it has no z-order",)


@pytest.mark.parametrize("able", ["spark", "trino"])
def test_auto_computes_statistics_on_an_engine_that_can_and_local_refuses_by_name(able: str) -> None:
    operation, local = Operation.COMPUTE_TABLE_STATS, local_capabilities("1")
    found = choose(local, engine(able), governor=policy(computeTableStats={}), operation=operation)
    assert found.engine == able
    assert "not local: the local engine has no library for theta sketches" in found.reason
    named = choose(local, engine(able), governor=policy(engine="local", computeTableStats={}), operation=operation)
    assert named.engine is None
    assert "use engine spark or trino" in named.refusals[0]
    assert named.refusals[1] == f"{able} could run it"


def test_auto_without_any_able_engine_names_the_reason_of_each() -> None:
    governor = policy(rewriteDataFiles={"strategy": "ZORDER", "zOrderColumns": ["a", "b"]})
    found = choose(engine(rewrite_data_files=NO_ZORDER), governor=governor, spark="connection spark_default is missing")
    assert found.engine is None
    assert found.refusals == (
        "engine local: setting strategy='ZORDER': it has no z-order",
        "engine spark is not available: connection spark_default is missing",
    )


def test_auto_with_no_engine_at_all_says_so() -> None:
    assert choose().refusals == ("no engine is configured",)


def test_a_named_engine_is_taken_whatever_the_size() -> None:
    found = choose(engine(), engine("spark"), governor=policy(engine="local"), size=LOCAL_LIMIT_BYTES * 9)
    assert (found.engine, found.reason) == ("local", "named by policy events")


def test_an_operation_names_its_own_engine() -> None:
    governor = policy(engine="local", rewriteDataFiles={"engine": "spark"})
    assert choose(engine(), engine("spark"), governor=governor).engine == "spark"


@pytest.mark.parametrize(
    ("unavailable", "why"),
    [({}, "it is not configured"), ({"trino": "host trino:8080 refused"}, "host trino:8080 refused")],
)
def test_a_named_engine_that_is_not_there_is_refused_never_replaced(unavailable: dict[str, str], why: str) -> None:
    found = choose(engine(), governor=policy(engine="trino"), **unavailable)
    assert found.engine is None
    assert found.refusals == (f"engine trino is not available: {why}", "local could run it")


def test_a_named_engine_that_refuses_says_which_other_could() -> None:
    governor = policy(engine="local", rewriteDataFiles={"strategy": "ZORDER", "zOrderColumns": ["a", "b"]})
    found = choose(engine(rewrite_data_files=NO_ZORDER), engine("spark"), governor=governor)
    assert found.engine is None
    assert found.refusals == ("engine local: setting strategy='ZORDER': it has no z-order", "spark could run it")


@pytest.mark.parametrize("operation", [Operation.REWRITE_MANIFESTS, Operation.EXPIRE_SNAPSHOTS])
def test_auto_keeps_what_rewrites_no_data_in_the_worker_however_large_the_table(operation: Operation) -> None:
    found = choose(engine("spark"), engine("local"), operation=operation, size=100 * LOCAL_LIMIT_BYTES)
    assert (found.engine, found.reason) == (
        "local",
        "auto: it rewrites no data, so the local engine is the cheapest",
    )


def test_auto_says_which_cheaper_engine_could_not_be_reached() -> None:
    large = LOCAL_LIMIT_BYTES + 1
    found = choose(engine("trino"), engine("local"), size=large, spark="it does not answer: check its host")
    assert found.engine == "trino"
    assert "; not spark: not available: it does not answer: check its host, not local: only up to" in found.reason
    alone = choose(engine("local"), size=large, spark="it does not answer")
    assert alone.engine == "local"
    assert alone.reason.startswith(
        "auto: no other engine can run it, although 50 GiB to read is above 50 GiB; not spark"
    )
    small = choose(engine("local"), size=1, spark="it does not answer")
    assert small.reason == "auto: 1 B to read; up to 50 GiB the local engine is the cheapest"


def test_auto_chooses_for_each_operation_by_itself() -> None:
    """What one engine refuses of one operation says nothing about the others."""
    local = engine(rewrite_data_files=OperationCapability(supported=False, reason="not here"))
    assert choose(local, engine("spark")).engine == "spark"
    assert choose(local, engine("spark"), operation=Operation.EXPIRE_SNAPSHOTS).engine == "local"
