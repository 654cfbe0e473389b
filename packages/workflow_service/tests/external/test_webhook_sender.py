"""Webhooks as their receivers see them."""

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from workflow_service.domain.webhook import PAUSES, DueDelivery, Outcome, pause_after
from workflow_service.external.addresses import AddressPolicy
from workflow_service.external.webhooks import SignedWebhooks
from workflow_service.ports import InvalidInputError

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
SECRETS = ("the first secret, long enough", "an older secret, long enough")
LOCAL = AddressPolicy(["127.0.0.1"])
OK = "HTTP/1.1 200 OK\r\n"


def due(url: str, user_id: str = "alice", delivery_id: UUID | None = None) -> DueDelivery:
    """A delivery to send."""
    body = json.dumps({"type": "run.succeeded", "data": {"text": "grüße"}}).encode()
    return DueDelivery(delivery_id or uuid4(), user_id, url, body, 1)


def test_receivers_verify_it_with_the_libraries_of_standard_webhooks(run: Run, receiver: Any) -> None:
    """The standard's own Python library accepts it, with either secret of the user and with no one else's."""
    sender = SignedWebhooks(SECRETS, LOCAL, 5)
    delivery = due(receiver.url)
    assert run(lambda: sender.send(delivery)) == Outcome(204)
    (received,) = receiver.received
    assert received.path == "/hook?for=run"
    assert received.headers["webhook-id"] == str(delivery.id)
    assert received.headers["content-type"] == "application/json"
    for secret in sender.secrets_of("alice"):
        assert secret.startswith("whsec_")
        assert Webhook(secret).verify(received.body, dict(received.headers)) == json.loads(delivery.body)
    others = [
        *sender.secrets_of("bob"),
        *SignedWebhooks(["another secret, long enough"], LOCAL, 5).secrets_of("alice"),
    ]
    for secret in others:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(received.body, dict(received.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(sender.secrets_of("alice")[0]).verify(received.body + b" ", dict(received.headers))
    assert SECRETS[0] not in repr(received) + repr(sender.secrets_of("alice"))


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (500, {}, Outcome(500, "the receiver answered 500")),
        (404, {}, Outcome(404, "the receiver answered 404")),
        (429, {"Retry-After": "120"}, Outcome(429, "the receiver answered 429", retry_after=120)),
        (410, {}, Outcome(410, "the receiver answered 410: it wants no more", is_final=True)),
        (
            307,
            {"Location": "http://169.254.169.254/"},
            Outcome(307, "the receiver answered 307: redirects are not followed"),
        ),
    ],
)
def test_what_receivers_answer(
    status: int, headers: dict[str, str], outcome: Outcome, run: Run, receiver: Any
) -> None:
    """Only a success is one; 410 is the last word."""
    receiver.answers.append(status)
    receiver.headers = headers
    assert run(lambda: SignedWebhooks(SECRETS, LOCAL, 5).send(due(receiver.url))) == outcome
    assert len(receiver.received) == 1


def test_receivers_that_do_not_answer(run: Run, receiver: Any, unused_port: int, open_sockets: Any) -> None:
    """Silent, away, or cut off by a cancellation: no connection is left."""
    receiver.gate = threading.Event()
    sender = SignedWebhooks(SECRETS, LOCAL, 0.2)

    async def scenario() -> None:
        assert await sender.send(due(receiver.url)) == Outcome(error="no answer within 0.2 s")
        patient = SignedWebhooks(SECRETS, LOCAL, 60)
        away = await patient.send(due(f"http://127.0.0.1:{unused_port}/"))
        assert away == Outcome(error="the host cannot be reached, or broke off")
        receiver.arrived.clear()
        task = asyncio.create_task(patient.send(due(receiver.url)))
        assert await asyncio.to_thread(receiver.arrived.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_sockets(receiver.port) == 0

    run(scenario)


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_answers_without_end_are_not_read(head: str, run: Run) -> None:
    """A body, headers, provisional answers: what was said counts, or the time or size that an answer may have."""

    async def scenario() -> tuple[Outcome, int]:
        written = 0
        gone = asyncio.Event()

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            piece = head if head.startswith("HTTP/1.1 100") else "X-Filler: " + "x" * 1000 + "\r\n"
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head.encode())
                while True:
                    writer.write(piece.encode())
                    await writer.drain()
                    written += len(piece)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                gone.set()

        async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            outcome = await SignedWebhooks(SECRETS, LOCAL, 1).send(due(f"http://127.0.0.1:{port}/"))
            await gone.wait()
        return outcome, written

    outcome, written = run(scenario)
    if head.endswith("OK\r\n\r\n"):
        assert outcome == Outcome(200)
        assert written < 32 * 1024 * 1024, "what the sockets hold, and not what can be read"
    else:
        assert outcome in (
            Outcome(error="no answer within 1 s"),
            Outcome(error="the host cannot be reached, or broke off"),
        )


@pytest.mark.parametrize("part", ["\r\nX-Injected: 1", "%0d%0aX-Injected:%201", "\n", "\x00"])
def test_an_address_brings_no_headers(part: str, run: Run, receiver: Any) -> None:
    """Line breaks are refused when a run is submitted, and stay encoded where they are."""
    sender = SignedWebhooks(SECRETS, LOCAL, 5)
    url = f"{receiver.url}{part}"
    if part.startswith("%"):
        sender.check(url)
        assert run(lambda: sender.send(due(url))) == Outcome(204)
        (received,) = receiver.received
        assert "x-injected" not in received.headers
        assert received.path.endswith(part)
    else:
        with pytest.raises(InvalidInputError, match=r"options\.webhook_url is no URL"):
            sender.check(url)


def test_nothing_is_sent_inside(run: Run, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A name at a private address is refused when connecting; the user does not learn which address it is."""
    caplog.set_level(logging.WARNING)
    sender = SignedWebhooks(SECRETS, AddressPolicy(), 5)
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1"):
        outcome = run(lambda host=host: sender.send(due(f"http://{host}:{receiver.port}/hook")))
        assert outcome == Outcome(error="the host is not at a public address")
    assert "name it in WORKFLOW_PRIVATE_HOSTS" in caplog.text
    assert not receiver.received


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://hooks.example/a?b=c", None),
        ("https://hooks.example:8443/", None),
        ("http://inside.example:8080/hook", None),
        ("https://10.1.2.3/hook", None),
        ("http://hooks.example/", "must begin with https://"),
        ("ftp://hooks.example/", "must begin with https:// and a host"),
        ("hooks.example", "must begin with https:// and a host"),
        ("https:///hook", "must begin with https:// and a host"),
        ("file:///etc/passwd", "must begin with https:// and a host"),
        ("https://user:password@hooks.example/", "must hold no user name and no password"),
        ("https://hooks.example/#part", "must have no fragment"),
        ("https://hooks.example:99999/", "has no host and port"),
        ("https://hooks.exa mple/", "has no host and port"),
        ("https://169.254.169.254/latest", "is not at a public address"),
        ("https://[::1]/", "is not at a public address"),
        ("https://[::ffff:10.0.0.1]/", None),
    ],
)
def test_addresses_are_checked_when_a_run_is_submitted(url: str, fault: str | None) -> None:
    """What could never be sent is refused at once; http is for hosts that configuration allows."""
    sender = SignedWebhooks(SECRETS, AddressPolicy(["10.0.0.0/8", "inside.example"]), 5)
    if fault is None:
        sender.check(url)
    else:
        with pytest.raises(InvalidInputError, match=f"options.webhook_url {fault}"):
            sender.check(url)


def test_without_a_secret_there_are_no_webhooks() -> None:
    """And the refusal says what to set."""
    sender = SignedWebhooks([], LOCAL, 5)
    with pytest.raises(InvalidInputError, match="set WORKFLOW_WEBHOOK_SECRETS"):
        sender.check("https://hooks.example/")
    assert list(sender.secrets_of("alice")) == []


def test_pauses_grow_and_have_an_end() -> None:
    """Retry-After makes a pause longer, never shorter, and never longer than the longest."""
    assert [pause_after(attempt, Outcome(500, "x")) for attempt in (1, 2, 9, 50)] == [5, 30, 72_000, 72_000]
    assert pause_after(1, Outcome(429, "x", retry_after=60)) == 60
    assert pause_after(2, Outcome(429, "x", retry_after=1)) == 30
    assert pause_after(1, Outcome(429, "x", retry_after=10**9)) == PAUSES[-1]
