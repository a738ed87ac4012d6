"""The pages of the catalogs: their examples load, and they claim no more than what the tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness.catalogs.registry import STARTED

from airflow_provider_floe.catalogs.fields import EXTRA_FIELDS
from airflow_provider_floe.catalogs.hive import HiveKind
from airflow_provider_floe.catalogs.registry import catalog_kind, kind_names
from airflow_provider_floe.hooks.floe import connection_fields
from airflow_provider_floe.tables import Operation

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "catalogs").glob("*.md"))
OWN_FIELDS = {"login", "password", "host", "port", "schema"}


@pytest.fixture(autouse=True)
def thrift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_floe.catalogs.hive.find_spec", lambda name: name)


def test_every_kind_has_a_page_and_the_list_leads_to_it() -> None:
    assert [page.stem for page in PAGES] == kind_names()
    linked = re.findall(r"\]\(catalogs/(\w+)\.md\)", (DOCS / "catalogs.md").read_text())
    assert sorted(linked) == kind_names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_load_and_mean_the_same(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    (document,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    variables = re.findall(r"^export AIRFLOW_CONN_LAKE='(.*?)'$", text, re.MULTILINE)
    assert [variable[:4] for variable in variables] == ['{"co', "floe"]
    found = []
    for example in (document, *variables):
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", example)
        fields = connection_fields("lake")
        kind = catalog_kind(fields.extra["catalog_kind"])
        assert kind.name == page.stem
        found.append(kind.properties(fields))
    assert found[0] == found[1] == found[2]
    assert json.loads(document)["extra"]["catalog_kind"] == page.stem


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_fields_of_a_page_are_those_of_the_kind(page: Path) -> None:
    form = page.read_text().partition("## The form")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", form, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    kind = catalog_kind(page.stem)
    known = EXTRA_FIELDS | OWN_FIELDS | set(getattr(kind, "own_fields", ()))
    assert named <= known
    assert named >= {"uri", "warehouse", "catalog_name", "properties"}
    assert named >= set(getattr(kind, "own_fields", ()))
    if not isinstance(kind, HiveKind) and page.stem != "sql":
        assert named >= EXTRA_FIELDS - {"catalog_kind"}


def yes_or_no(fact: object) -> str:
    return "yes" if fact else "no"


def test_the_table_says_what_the_tests_run() -> None:
    page = (DOCS / "catalogs.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    shown = {row[0]: row[1:] for row in rows if len(row) == 8}
    shown.pop("catalog")
    shown.pop("---")
    deleting = {Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES}
    assert shown == {
        one.name: [
            f"`{one.kind}`",
            one.version,
            "refused" if deleting <= set(one.refuses) else "yes",
            *(
                "yes" if fact else "no"
                for fact in (one.nested, one.names, "trino" in one.engines, "spark" in one.engines)
            ),
        ]
        for one in STARTED
    }


@pytest.mark.parametrize("kind", kind_names())
def test_a_page_names_the_versions_that_the_tests_run_on(kind: str) -> None:
    (tested,) = re.findall(r"^Tested against: (.*)$", (DOCS / "catalogs" / f"{kind}.md").read_text(), re.MULTILINE)
    versions = [one.version for one in STARTED if one.kind == kind]
    assert all(version in tested for version in versions)
    assert bool(versions) is not tested.startswith("nothing yet")


@pytest.mark.parametrize("page", [DOCS / "catalogs.md", *PAGES], ids=lambda page: page.stem)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
