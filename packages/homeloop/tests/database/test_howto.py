"""The how-to about the database: its SQL and its Python run as written, save names and the password."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

pytestmark = pytest.mark.needs("postgres")

HOWTO = Path(__file__).parents[4] / "docs" / "howto" / "database.md"
CHECKS = """
assert bodies == ["hers"], bodies
assert homeloop.run(all_documents) == 2
homeloop.run(work)
homeloop.default_runtime().close()
"""


def blocks(language: str) -> list[str]:
    """Return the document's blocks in a language; those marked runnable run elsewhere."""
    return re.findall(rf"^```{language}\n(.*?)^```$", HOWTO.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def role(own_database: str) -> Iterator[str]:
    """The document's role under a name of its own, made by the document's SQL in a database with two documents."""
    name = f"homeloop_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE documents (owner text, body text)")
        connection.execute("INSERT INTO documents VALUES ('alice', 'hers'), ('bob', 'his')")
        try:
            for block in blocks("sql"):
                own = re.sub(r"\bapp\b(?!\.)", name, block).replace("'...'", f"'{name}'")
                connection.execute(own.encode())
            yield name
        finally:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_the_how_to_runs(role: str, own_database: str) -> None:
    """Row level security as it is shown there lets alice see hers, and the service all."""
    where = urlsplit(own_database)
    users = where._replace(netloc=f"{role}:{role}@{where.hostname}:{where.port or 5432}").geturl()
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*blocks("python"), CHECKS])],
        env={**os.environ, "DATABASE_URL": users, "SERVICE_DATABASE_URL": own_database},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
