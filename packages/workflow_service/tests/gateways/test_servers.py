"""Servers that cannot be used: the message says which setting, why and what to do, and hides the password."""

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_service.gateways.servers import UnusableServerError, check_broker, check_database, without_password


def refusal(check, url):
    with pytest.raises(UnusableServerError) as caught:
        asyncio.run(asyncio.wait_for(check(url), 60))
    [line] = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize("url", ["memory://", "filesystem://", "nonsense", "http://x", "sqla+sqlite:///x", ""])
def test_a_broker_that_the_service_does_not_know_is_refused_with_those_it_knows(url):
    """Celery would take some of them, and runs would wait for ever."""
    line = refusal(check_broker, url)
    assert line.startswith(f"BROKER_URL={url} cannot be used: it must begin with one of redis://")
    assert "amqp://" in line


@pytest.mark.parametrize("port", ["abc", "99999", "pa#ss"])
@pytest.mark.parametrize(("check", "scheme"), [(check_broker, "redis"), (check_database, "postgresql")])
def test_an_address_that_is_malformed_is_named(check, scheme, port):
    """What is no port may be a piece of a password; it is not repeated."""
    line = refusal(check, f"{scheme}://user:{port}@h:99999/0")
    assert f"{scheme}://user:***@h:99999/0" in line
    assert "its port is no number" in line


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_named(scheme, unused_tcp_port):
    """One line, with the server's own reason."""
    line = refusal(check_broker, f"{scheme}://user:sesame@127.0.0.1:{unused_tcp_port}/0")
    assert line.startswith(f"BROKER_URL={scheme}://user:***@127.0.0.1:{unused_tcp_port}/0 cannot be used: ")
    assert "refused" in line
    assert "sesame" not in line


@pytest.mark.needs("rabbitmq")
def test_a_wrong_password_for_the_broker_is_named(rabbitmq_url):
    """RabbitMQ's own words, which are of no class that kombu translates."""
    where = urlsplit(rabbitmq_url)
    line = refusal(check_broker, f"amqp://{where.username}:sesame@{where.hostname}:{where.port or 5672}//")
    assert "ACCESS_REFUSED" in line
    assert "sesame" not in line


@pytest.mark.needs("redis")
def test_a_redis_database_that_is_no_number_is_named(redis_url):
    """The address is right up to its last part."""
    assert "not abc" in refusal(check_broker, redis_url.rpartition("/")[0] + "/abc")


@pytest.mark.needs("postgres", "redis")
def test_a_server_of_another_kind_is_refused(postgres_url, redis_url):
    """PostgreSQL is no Redis, and the other way round."""
    postgres, redis = urlsplit(postgres_url), urlsplit(redis_url)
    assert "BROKER_URL" in refusal(check_broker, f"redis://{postgres.hostname}:{postgres.port or 5432}/0")
    assert "DATABASE_URL" in refusal(check_database, f"postgresql://u:p@{redis.hostname}:{redis.port or 6379}/x")


def test_a_folder_with_other_things_is_no_broker(tmp_path: Path):
    """Nothing is written into it."""
    (tmp_path / "letter.txt").touch()
    assert "is no message broker's" in refusal(check_broker, f"safefs://{tmp_path}")
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.needs("redis", "rabbitmq")
def test_brokers_that_work_are_taken(redis_url, rabbitmq_url, tmp_path: Path):
    """Redis, RabbitMQ and a folder."""
    for url in (redis_url, rabbitmq_url, f"safefs://{tmp_path / 'broker'}"):
        asyncio.run(check_broker(url))


@pytest.mark.parametrize("url", ["nonsense", "mysql://x", ""])
def test_an_address_of_no_postgresql_is_refused(url):
    """It would be refused later, by the API, with a traceback."""
    assert refusal(check_database, url).startswith(f"DATABASE_URL={url} cannot be used: it must begin with")


def test_a_database_that_is_not_there_is_named(unused_tcp_port):
    """The password is hidden, in the address and among the parameters."""
    for url in (
        f"postgresql://u:sesame@127.0.0.1:{unused_tcp_port}/x",
        f"postgresql://127.0.0.1:{unused_tcp_port}/x?user=u&password=sesame",
    ):
        line = refusal(check_database, url)
        assert line.startswith("DATABASE_URL=postgresql://")
        assert "***" in line
        assert "sesame" not in line


@pytest.mark.needs("postgres")
def test_a_role_or_database_that_is_unknown_is_named(postgres_url):
    """PostgreSQL's own words."""
    where = urlsplit(postgres_url)
    place = f"{where.hostname}:{where.port or 5432}"
    assert "nobody_here" in refusal(check_database, f"postgresql://nobody_here:sesame@{place}/postgres")
    assert '"nowhere"' in refusal(check_database, where._replace(path="/nowhere").geturl())
    asyncio.run(check_database(postgres_url))


@given(st.text(st.characters(categories=["L", "N"], include_characters=":/@#?%"), min_size=3))
def test_no_password_is_shown_however_it_is_written(password):
    """Signs that must be percent-encoded and are not make an address malformed, not its password visible."""
    shown = without_password(f"redis://user:«{password}»@host:6379/0")
    assert re.fullmatch(r"redis://user:\*\*\*@host:6379/0", shown)
