"""Policies as rows."""

from __future__ import annotations

import json

from pydantic import ValidationError
from sqlalchemy import Connection, delete, select, update

from airflow_provider_floe.errors import InvalidPolicy
from airflow_provider_floe.policies.model import Policy
from airflow_provider_floe.stores.sql.expressions import upsert
from airflow_provider_floe.stores.sql.queries import Queries
from airflow_provider_floe.stores.sql.schema import counters, policies

REVISION = "policy_revision"
"""Name of the counter that grows with every change of a policy."""


class PolicyQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.PolicyStore`."""

    def policies(self) -> list[Policy]:
        """All policies, by name.

        :raises InvalidPolicy: when a row is not a valid policy, naming it and the field.
        """
        return [_parse(name, document) for name, document in self.policy_documents().items()]

    def policy_documents(self) -> dict[str, str]:
        """All policies as JSON text by name, whether they are valid or not."""
        with self._database.read() as connection:
            rows = connection.execute(select(policies.c.name, policies.c.document)).all()
        # sorted here, because databases differ in collation
        return dict(sorted((row.name, row.document) for row in rows))

    def put_policy(self, policy: Policy) -> None:
        """Create or replace by name; writing an equal document changes nothing, the revision included."""
        document = json.dumps(policy.wire())
        with self._database.write() as connection:
            found = connection.execute(
                select(policies.c.document).where(policies.c.name == policy.name).with_for_update()
            ).scalar_one_or_none()
            if found == document:
                return
            statement = upsert(connection, policies).values(name=policy.name, document=document)
            connection.execute(
                statement.on_conflict_do_update(index_elements=[policies.c.name], set_={"document": document})
            )
            _count(connection)

    def delete_policy(self, name: str) -> bool:
        """Whether there was one."""
        with self._database.write() as connection:
            deleted = connection.execute(delete(policies).where(policies.c.name == name)).rowcount > 0
            if deleted:
                _count(connection)
            return deleted

    def policy_revision(self) -> int:
        """Grows with every change; one query by primary key."""
        with self._database.read() as connection:
            return int(connection.execute(select(counters.c.value).where(counters.c.name == REVISION)).scalar_one())


def _count(connection: Connection) -> None:
    connection.execute(update(counters).where(counters.c.name == REVISION).values(value=counters.c.value + 1))


def _parse(name: str, document: str) -> Policy:
    try:
        return Policy.model_validate_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidPolicy(
            f"policy {name!r} in the Floe store: {where}: {first['msg']}; replace or delete this policy"
        ) from error
