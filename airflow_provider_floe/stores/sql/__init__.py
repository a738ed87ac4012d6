"""The Floe store in SQL: one implementation for PostgreSQL, a SQLite file, and SQLite in memory."""
