"""``migrate``: what is missing, done, checked or printed."""

import asyncpg

from workflow_service.cli.view import View
from workflow_service.gateways.postgres.schema import current_revision, revisions
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.local.errors import LocalError
from workflow_service.ports import ServiceError


async def migrate_database(view: View, database_url: str, *, check: bool, sql: bool) -> bool:
    """Do what ``migrate`` was asked, and return whether the schema is up to date, or its SQL printed.

    Raises:
        LocalError: The database cannot be used, or is ahead of this release.
    """
    from workflow_service.gateways.postgres.migrator import migrate, sql_from

    try:
        if not check and not sql:
            applied = await migrate(database_url)
            view.say(
                f"Applied {', '.join(applied)}." if applied else f"Nothing to do: the schema is {revisions()[-1]}."
            )
            return True
        current = await current_revision(single_connection(database_url))
        if sql:
            view.say(sql_from(current))
            return True
    except ServiceError as error:
        raise LocalError(str(error)) from error
    except asyncpg.PostgresError as error:
        raise LocalError(f"the database refused: {error}; check DATABASE_URL and its role's rights") from error
    if current == revisions()[-1]:
        view.say(f"The schema is up to date: {current}.")
        return True
    view.warn(
        f"The schema is {current or 'not there'}, this release needs {revisions()[-1]}: workflow-service migrate"
    )
    return False
