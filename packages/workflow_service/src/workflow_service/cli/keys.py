"""``workflow-service keys``: make, list and revoke the keys of users, in the service's database."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import asyncpg
import click
from rich.table import Table
from rich.text import Text

from workflow_service.cli.home_option import home_option
from workflow_service.cli.view import View
from workflow_service.domain.identity import ApiKey, is_user_id
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.gateways.servers import UnusableServerError, check_database
from workflow_service.local.errors import LocalError
from workflow_service.local.service import Connection
from workflow_service.ports import DatabaseRightsError, StoreUnavailableError

T = TypeVar("T")

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=3650)


class _Lifetime(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a number and a unit, as in ``12h``, ``90d``, ``4w``."""
        match = re.fullmatch(r"([1-9]\d{0,4})([hdw])", str(value))
        lifetime = int(match[1]) * _UNITS[match[2]] if match else None
        if lifetime is None or lifetime > _LONGEST:
            self.fail(f"{value!r} is no time like 12h, 90d or 4w, of ten years at most", param, ctx)
        return lifetime


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that users present.

    Works on the database that DATABASE_URL names, or on that of the service that runs on the home.
    """


@keys.command()
@click.argument("user")
@click.option("--label", default="", help="What the key is for; shown in the list.")
@click.option(
    "--expires-in", type=_Lifetime(), help="How long it is good: 12h, 90d, 4w.  [default: until revoked]"
)
@home_option
def create(home: Path, user: str, label: str, expires_in: timedelta | None) -> None:
    """Make a key for USER and print it, for the only time.

    The key alone goes to standard output. The database keeps a digest, from which nobody makes the key again.
    """
    if not is_user_id(user):
        raise click.BadParameter("1 to 255 characters, none of control, no space around", param_hint="USER")
    view = View()
    key, kept = _on_store(home, view, lambda store: store.create(user, label, expires_in))
    click.echo(key)
    until = f"until {kept.expires_at:%Y-%m-%d %H:%M} UTC" if kept.expires_at else "until it is revoked"
    view.err.print(Text(f"{kept.prefix} opens the service to {user} {until}. Keep it: it is not shown again."))


@keys.command("list")
@click.option("--user", help="Only this user's.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")
@home_option
def list_keys(home: Path, user: str | None, as_json: bool) -> None:
    """List keys by their prefix, newest first, with when each was last used. Secrets are not known to anyone."""
    view = View()
    found = _on_store(home, view, lambda store: store.list_keys(user))
    if as_json:
        for key in found:
            click.echo(json.dumps(asdict(key), default=datetime.isoformat))
        return
    table = Table(box=None)
    for column in ("key", "user", "label", "made", "last used", "state"):
        table.add_column(column)
    for key in found:
        cells = (key.prefix, key.user_id, key.label, _day(key.created_at), _day(key.last_used_at), _state(key))
        table.add_row(*map(Text, cells))
    view.out.print(table)


@keys.command()
@click.argument("prefix")
@home_option
def revoke(home: Path, prefix: str) -> None:
    """Revoke the key with PREFIX (wsk_ and twelve digits; the whole key will do). It opens nothing after 5 s."""
    view = View()
    named = "_".join(prefix.split("_")[:2])
    key = _on_store(home, view, lambda store: store.revoke(named))
    if key is None:
        view.error(LocalError(f"there is no key {named!r}; see: workflow-service keys list"))
        sys.exit(1)
    view.say(f"Revoked {key.prefix} of {key.user_id}.")


def _on_store(home: Path, view: View, use: Callable[[PostgresApiKeyStore], Awaitable[T]]) -> T:
    async def main(url: str) -> T:
        await check_database(url)
        return await use(PostgresApiKeyStore(single_connection(url)))

    try:
        url = os.environ.get("DATABASE_URL") or Connection.of(home.expanduser().resolve()).database_url
        return asyncio.run(main(url))
    except (UnusableServerError, DatabaseRightsError, StoreUnavailableError) as error:
        view.error(LocalError(str(error)))
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        view.error(LocalError("this database has no tables of the service yet; run: workflow-service migrate"))
    except LocalError as error:
        view.error(error)
    sys.exit(1)


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "good"
    return f"{'expired' if key.expires_at < datetime.now(UTC) else 'good until'} {_day(key.expires_at)}"
