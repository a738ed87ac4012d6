"""Health reports and assessments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, func, select

from airflow_provider_floe.health.report import Assessment, HealthReport
from airflow_provider_floe.stores.sql.expressions import database_time, dump, load, upsert
from airflow_provider_floe.stores.sql.queries import CHUNK, Queries, document_of, table_key
from airflow_provider_floe.stores.sql.schema import assessments, health_reports
from airflow_provider_floe.tables import TableRef

_ASSESSMENTS_KEPT = timedelta(days=7)


class HealthQueries(Queries):
    """Implements :class:`~airflow_provider_floe.stores.protocols.TableHealthStore`."""

    def save_reports(self, reports: Iterable[HealthReport], *, keep_per_table: int = 100, keep_days: int = 30) -> None:
        """Persist those not there yet, then drop what exceeds the retention: per table by count, for all by age."""
        rows = [
            {
                "id": report.id,
                "table_key": table_key(report.table),
                "assessed_at": report.assessed_at,
                "document": dump(report),
            }
            for report in reports
        ]
        keys = sorted({str(row["table_key"]) for row in rows})
        with self._database.write() as connection:
            if rows:
                connection.execute(upsert(connection, health_reports).on_conflict_do_nothing(), rows)
            for start in range(0, len(keys), CHUNK):
                newest_first = (
                    select(
                        health_reports.c.seq,
                        func.row_number()
                        .over(
                            partition_by=health_reports.c.table_key,
                            order_by=(health_reports.c.assessed_at.desc(), health_reports.c.seq.desc()),
                        )
                        .label("place"),
                    )
                    .where(health_reports.c.table_key.in_(keys[start : start + CHUNK]))
                    .subquery()
                )
                surplus = select(newest_first.c.seq).where(newest_first.c.place > keep_per_table)
                connection.execute(delete(health_reports).where(health_reports.c.seq.in_(surplus)))
            connection.execute(
                delete(health_reports).where(health_reports.c.assessed_at < database_time(-timedelta(days=keep_days)))
            )

    def latest_report(self, table: TableRef) -> HealthReport | None:
        """The newest one kept."""
        found = self.reports(table, limit=1)
        return found[0] if found else None

    def reports(self, table: TableRef, limit: int = 100) -> list[HealthReport]:
        """Newest first."""
        query = (
            select(health_reports.c.document)
            .where(health_reports.c.table_key == table_key(table))
            .order_by(health_reports.c.assessed_at.desc(), health_reports.c.seq.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            documents = connection.execute(query).scalars().all()
        return [load(HealthReport, document) for document in documents]

    def save_assessment(self, assessment: Assessment) -> None:
        """Keep for the plan task, for a week; the same one may be saved again."""
        with self._database.write() as connection:
            statement = upsert(connection, assessments).values(
                id=assessment.id, saved_at=database_time(), document=dump(assessment)
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[assessments.c.id], set_={"document": statement.excluded.document}
                )
            )
            connection.execute(delete(assessments).where(assessments.c.saved_at < database_time(-_ASSESSMENTS_KEPT)))

    def assessment(self, assessment_id: str) -> Assessment:
        """:raises KeyError: when there is none."""
        with self._database.read() as connection:
            return load(Assessment, document_of(connection, assessments, assessment_id))
