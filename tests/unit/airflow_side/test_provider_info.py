from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider_floe.catalogs.registry import kind_names
from airflow_provider_floe.maintenance.settings import Settings
from airflow_provider_floe.provider_info import get_provider_info

INFO = get_provider_info()
OPTIONS = INFO["config"]["floe"]["options"]


def test_it_is_valid_against_airflows_own_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


@pytest.mark.parametrize(("name", "field"), Settings.model_fields.items(), ids=str)
def test_every_setting_is_an_option_with_the_same_default(name, field):
    option = OPTIONS[name]
    if name == "default_timezone" or field.default_factory:
        assert option["default"] is None  # Airflow's own time zone; no overrides of the score's weights
        return
    assert option["default"] == str(getattr(field.default, "value", field.default))
    kinds = {bool: "boolean", int: "integer", float: "float"}
    assert option["type"] == kinds.get(type(field.default), "string")


def test_every_name_in_it_can_be_imported():
    dotted = [
        *INFO["extra-links"],
        *INFO["cli"],
        *(one["hook-class-name"] for one in INFO["connection-types"]),
        *(one[key] for one in INFO["asset-uris"] for key in ("handler", "factory")),
    ]
    for name in dotted:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute)
    for group in ("hooks", "operators"):
        for entry in INFO[group]:
            for module in entry["python-modules"]:
                import_module(module)


def test_the_form_offers_every_kind_of_catalog():
    [connection] = INFO["connection-types"]
    assert connection["conn-fields"]["catalog_kind"]["schema"]["enum"] == kind_names()


def test_reading_it_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); "
        "from airflow_provider_floe.provider_info import get_provider_info; get_provider_info(); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {"__future__", "airflow_provider_floe", "typing"} | set(sys.stdlib_module_names)


def test_the_plugin_does_not_load_the_data_libraries():
    code = (
        "import sys; import airflow_provider_floe.plugin; "
        "heavy = ('pyiceberg', 'pyarrow', 'duckdb', 'obstore', 'fastapi'); "
        "print('loaded', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
