"""Which policy governs which operation on a table, with the explanation."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_floe.policies.model import Policy


@dataclass(frozen=True, slots=True)
class Governance:
    """Which policy governs one operation on one table.

    :ivar policy: None when no enabled policy that matches has a settings object for the operation.
    :ivar explanation: "governed by X because ...; also matched by Y, Z".
    """

    policy: Policy | None
    explanation: str
