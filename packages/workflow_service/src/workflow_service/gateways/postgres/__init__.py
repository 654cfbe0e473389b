"""Runs, documents and wake-ups in PostgreSQL, schema ``workflow``."""
