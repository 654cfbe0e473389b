"""For migrations: their statements stand in a file of SQL beside them, which people and tools can read."""

import re
from pathlib import Path

from alembic import op

_LIKE_A_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")


def execute_sql_beside(migration: str) -> None:
    """Run the statements of the file that has a migration's name and ends with ``.sql``.

    Args:
        migration: The path of the migration, its ``__file__``.
    """
    # The owner is bound by row security: a change of users' rows would pass by all of them without a word. With
    # this it is an error, and the migration has to lift FORCE from the table until it is done.
    op.execute("SET LOCAL row_security = off")
    # The owner is bound by row security: a change of users' rows would pass by all of them without a word. With
    # this it is an error, and the migration has to lift FORCE from the table until it is done.
    op.execute("SET LOCAL row_security = off")
    sql = Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    # SQLAlchemy would take ':word' for a parameter, in a comment too.
    op.execute(_LIKE_A_PARAMETER.sub(r"\\:", sql))
