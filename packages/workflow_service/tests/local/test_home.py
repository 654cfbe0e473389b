"""The home folder: private, locked, and never somebody else's."""

import json
import os
import stat
from pathlib import Path

import pytest

from workflow_service.local.errors import HomeError
from workflow_service.local.home import Home, write_private
from workflow_service.local.service import Connection


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_that_became_readable_is_closed_again(home: Home) -> None:
    """A home of ours whose permissions were widened is private again."""
    with home.locked():
        pass
    home.path.chmod(0o755)

    Home.open(home.path)

    assert mode(home.path) == 0o700


def test_empty_folder_becomes_a_home(tmp_path: Path) -> None:
    """A folder made for the purpose is taken, and closed."""
    folder = tmp_path / "new"
    folder.mkdir(mode=0o755)

    assert mode(Home.open(folder).path) == 0o700


def test_home_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A file in the way is an error with the path and the way out."""
    (tmp_path / "file").touch()

    with pytest.raises(HomeError, match=r"file/home cannot be used: .*--home DIR"):
        Home.open(tmp_path / "file" / "home")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A folder of another user is refused, whatever it holds."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    with pytest.raises(HomeError, match="belongs to user id 12345"):
        Home.open(folder)


def test_key_is_made_once(home: Home) -> None:
    """The key stays the same from start to start, in a private file."""
    first = home.api_keys()

    assert home.api_keys() == first
    assert len(first["local"]) >= 32
    assert mode(home.path / "api-keys.json") == 0o600


def test_the_secret_of_webhooks_is_made_once_and_private(tmp_path: Path) -> None:
    """Receivers that know a user's secret go on verifying after a restart."""
    home = Home.open(tmp_path / "home")
    secret = home.webhook_secret()
    assert len(secret) >= 32
    assert home.webhook_secret() == secret
    assert mode(home.path / "webhook-secret") == 0o600


def test_private_file_is_private_also_where_it_was_not(tmp_path: Path) -> None:
    """Writing replaces a readable file by a private one, and leaves no draft."""
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)

    write_private(file, "new")

    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_broker_url_survives_odd_paths(tmp_path: Path) -> None:
    """Spaces and signs in the path do not change the URL's structure."""
    home = Home.open(tmp_path / "a b#c?d%e")

    assert home.broker_url == f"safefs://{tmp_path}/a%20b%23c%3Fd%25e/broker"


def test_connection_of_a_dead_service_is_refused(home: Home) -> None:
    """What a killed supervisor wrote about itself leads to nobody."""
    facts = {
        "address": "http://127.0.0.1:1/",
        "concurrency": 1,
        "database_url": "",
        "broker_url": "",
        "api_keys": {},
    }
    write_private(
        home.path / "connection.json", json.dumps({"supervisor": os.getpid(), "supervisor_created": 1.0, **facts})
    )

    with pytest.raises(HomeError, match="is no longer there; start it with: workflow-service up"):
        Connection.of(home.path)
