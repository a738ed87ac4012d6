"""The words every room shares: table references and operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

from airflow_provider_floe.errors import ConfigurationError, InvalidTableReference


class Operation(StrEnum):
    """A maintenance operation, by the name of Spark's procedure."""

    REWRITE_DATA_FILES = "rewrite_data_files"
    REWRITE_POSITION_DELETE_FILES = "rewrite_position_delete_files"
    REWRITE_MANIFESTS = "rewrite_manifests"
    COMPUTE_TABLE_STATS = "compute_table_stats"
    EXPIRE_SNAPSHOTS = "expire_snapshots"
    REMOVE_ORPHAN_FILES = "remove_orphan_files"

    @property
    def policy_key(self) -> str:
        """The operation's key in a policy document, for example ``orphanCleanup``."""
        return _POLICY_KEYS[self]

    @classmethod
    def parse(cls, text: str) -> Operation:
        """Accept both Spark's name and the policy's key.

        :raises ConfigurationError: naming the value and the valid names.
        """
        for operation in cls:
            if text in (operation.value, operation.policy_key):
                return operation
        raise ConfigurationError(
            f"unknown operation {text!r}: use one of {', '.join(operation.value for operation in cls)}"
        )


_POLICY_KEYS = {
    Operation.REWRITE_DATA_FILES: "rewriteDataFiles",
    Operation.REWRITE_POSITION_DELETE_FILES: "rewritePositionDeleteFiles",
    Operation.REWRITE_MANIFESTS: "rewriteManifests",
    Operation.COMPUTE_TABLE_STATS: "computeTableStats",
    Operation.EXPIRE_SNAPSHOTS: "expireSnapshots",
    Operation.REMOVE_ORPHAN_FILES: "orphanCleanup",
}

DELETE_FILE_OPERATIONS = (Operation.REWRITE_DATA_FILES, Operation.REWRITE_POSITION_DELETE_FILES)
"""The operations that leave fewer delete files: the first applies them, the second compacts them."""

RUN_ORDER: tuple[Operation, ...] = tuple(Operation)
"""The order of operations on one table: each later one profits from, and never undoes, the earlier ones.

Statistics belong to one snapshot: they are computed of the one that the rewrites leave, which expiry keeps.
"""


@dataclass(frozen=True, slots=True, order=True)
class TableRef:
    """Names one table: catalog, namespace of one or more levels, table name."""

    catalog: str
    namespace: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if not self.catalog or not self.name or not self.namespace or not all(self.namespace):
            raise InvalidTableReference(
                f"a table needs catalog, namespace and name, none of them empty: got catalog={self.catalog!r}, "
                f"namespace={list(self.namespace)!r}, table={self.name!r}"
            )

    def __str__(self) -> str:
        return ".".join(_quote(part) for part in (self.catalog, *self.namespace, self.name))

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespace levels and table name, as pyiceberg's catalogs take them."""
        return (*self.namespace, self.name)

    @classmethod
    def of(cls, catalog: str, namespace: str | Sequence[str], name: str) -> TableRef:
        """Build a reference from a table conf, where the namespace is ``"a.b"`` or a list of levels."""
        levels = split_dotted(namespace) if isinstance(namespace, str) else tuple(namespace)
        return cls(catalog, levels, name)

    @classmethod
    def parse(cls, text: str) -> TableRef:
        """Read ``catalog.namespace[.level...].table``; a part with a dot stands in backquotes.

        :raises InvalidTableReference: when there are fewer than three parts.
        """
        parts = split_dotted(text)
        if len(parts) < 3:
            raise InvalidTableReference(f"{text!r} is not a table: write catalog.namespace.table")
        return cls(parts[0], parts[1:-1], parts[-1])

    def uri(self, scheme: str = "floe") -> str:
        """The asset URI, each part percent-encoded: ``floe://catalog/level/table``."""
        catalog, *rest = (quote(part, safe="") for part in (self.catalog, *self.namespace, self.name))
        return f"{scheme}://{catalog}/{'/'.join(rest)}"

    @classmethod
    def from_uri(cls, uri: str) -> TableRef:
        """The inverse of :meth:`uri`, for any scheme."""
        catalog, *rest = (unquote(part) for part in uri.partition("://")[2].split("/"))
        if len(rest) < 2:
            raise InvalidTableReference(f"{uri!r} is not a table: write scheme://catalog/namespace/table")
        return cls(catalog, tuple(rest[:-1]), rest[-1])


def split_dotted(text: str) -> tuple[str, ...]:
    """Split at dots outside backquotes; a doubled backquote inside quotes stands for itself.

    :raises InvalidTableReference: when a quote is not closed.
    """
    parts: list[str] = []
    part: list[str] = []
    quoted = False
    i = 0
    while i < len(text):
        char = text[i]
        if char == "`" and quoted and text[i + 1 : i + 2] == "`":
            part.append("`")
            i += 1
        elif char == "`":
            quoted = not quoted
        elif char == "." and not quoted:
            parts.append("".join(part))
            part = []
        else:
            part.append(char)
        i += 1
    if quoted:
        raise InvalidTableReference(f"{text!r}: a backquote is not closed")
    parts.append("".join(part))
    return tuple(parts)


def _quote(part: str) -> str:
    return "`" + part.replace("`", "``") + "`" if "." in part or "`" in part else part
