"""The JSON Schema of policy files, so that editors complete and check them."""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_snake

from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.tables import Operation

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what a policy file may hold: one policy, a list, or a mapping with ``policies``.

    Keys are accepted in camelCase and in snake_case. The loader is stricter: it also refuses both spellings of one
    field at once, and checks patterns, schedules and settings that must fit each other. Equal in every process.
    """
    schema = Policy.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = schema.pop("$defs")
    definitions["Policy"] = schema
    names = [name for operation in Operation for name in (operation.value, operation.policy_key)]
    definitions["Operation"] |= {"enum": names, "description": "An operation, by Spark's name or by the policy's key."}
    for name, definition in definitions.items():
        if "properties" in definition:
            _accept_snake_case(name, definition)
    policies = {"type": "array", "items": {"$ref": "#/$defs/Policy"}}
    return {
        "$schema": DIALECT,
        "title": "Floe policies",
        "description": "Maintenance policies of Apache Iceberg tables: one, a list, or a mapping with `policies`.",
        "anyOf": [
            {"$ref": "#/$defs/Policy"},
            policies,
            {
                "type": "object",
                "properties": {"policies": policies},
                "required": ["policies"],
                "additionalProperties": False,
            },
        ],
        "$defs": dict(sorted(definitions.items())),
    }


def _accept_snake_case(name: str, definition: dict[str, Any]) -> None:
    """Add the snake_case spelling of every property, as a reference to the camelCase one."""
    properties = definition["properties"]
    for described in properties.values():
        described.pop("title", None)  # made from the name, so it says nothing
    spellings = {wire: to_snake(wire) for wire in properties if to_snake(wire) != wire}
    properties |= {snake: {"$ref": f"#/$defs/{name}/properties/{wire}"} for wire, snake in spellings.items()}
    required = definition.pop("required", [])
    plain = [wire for wire in required if wire not in spellings]
    if plain:
        definition["required"] = plain
    either = [
        {"anyOf": [{"required": [wire]}, {"required": [spellings[wire]]}]} for wire in required if wire in spellings
    ]
    if either:
        definition["allOf"] = either
