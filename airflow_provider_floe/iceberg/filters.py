"""Which data files may hold rows that match a policy's filter, by their partition values and column bounds."""

from __future__ import annotations

from pyiceberg.expressions import BooleanExpression
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import ManifestGroupPlanner, Table

from airflow_provider_floe.errors import ConfigurationError
from airflow_provider_floe.iceberg.manifests import snapshot_manifests


def parse_filter(table: Table, text: str) -> BooleanExpression:
    """An expression over the table's columns, from a SQL predicate such as ``"day >= '2026-01-01' and id in (1, 2)"``.

    :raises ConfigurationError: when it cannot be parsed, or names a column that the table does not have.
    """
    try:
        expression: BooleanExpression = parse(text)
        bind(table.schema(), expression, case_sensitive=True)
    except Exception as error:
        columns = ", ".join(field.name for field in table.schema().fields)
        raise ConfigurationError(
            f"filter {text!r} cannot be used on {'.'.join(table.name())}: {error}; write a SQL predicate over {columns}"
        ) from error
    return expression


class MatchingFiles:
    """The data files that may hold rows that match, manifest by manifest.

    :raises ConfigurationError: see :func:`parse_filter`.
    """

    def __init__(self, table: Table, text: str) -> None:
        self._planner = ManifestGroupPlanner(table.metadata, table.io, parse_filter(table, text))

    def paths(self, manifest: ManifestFile) -> frozenset[str]:
        """Paths of the files of a data manifest."""
        return frozenset(
            entry.data_file.file_path for found in self._planner.plan_manifest_entries([manifest]) for entry in found
        )


def matching_paths(table: Table, text: str) -> frozenset[str]:
    """Paths of the data files that may hold matching rows.

    :raises ConfigurationError: see :func:`parse_filter`.
    """
    planner = ManifestGroupPlanner(table.metadata, table.io, parse_filter(table, text))
    manifests = [one for one in snapshot_manifests(table) if one.content == ManifestContent.DATA]
    return frozenset(entry.data_file.file_path for found in planner.plan_manifest_entries(manifests) for entry in found)
