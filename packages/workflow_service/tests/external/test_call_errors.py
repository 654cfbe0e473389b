"""What says whether a call that failed is tried again."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import httpx
import pytest
import stamina
from referencing.exceptions import Unresolvable

from workflow_service.external import (
    ExternalService,
    ExternalServiceResponse,
    Operation,
    ServiceCallError,
    ServiceResources,
)
from workflow_service.external.faults import retry_after
from workflow_service.settings import ExternalSettings, ServiceSettings
from workflow_service.testing.providers import ProviderServer
from workflow_service.workflows.engine.schemas import faults_of


def test_call_errors_survive_pickle() -> None:
    """They may cross a process tier."""
    error = ServiceCallError("refused", 1006, 400, False, True, 2.5)
    same = pickle.loads(pickle.dumps(error))
    assert (str(same), same.code, same.status, same.retry_after) == ("refused", 1006, 400, 2.5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 40, 999_999_999),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    """A number is taken, what makes no sense is left."""
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    """In the future it is so far away; in the past it is now."""
    soon = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)})
    assert soon is not None
    assert 60 < soon <= 120
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "is_transient", "was_done"),
    [
        (400, False, True),
        (403, False, True),
        (425, True, False),
        (429, True, False),
        (500, True, True),
        (503, True, True),
    ],
)
def test_what_a_status_says(status: int, is_transient: bool, was_done: bool) -> None:
    """Whether another attempt may pass, and whether the provider may have done something."""
    error = ServiceCallError.of_status(status, {"retry-after": "3"}, "no")
    assert (error.is_transient, error.was_done, error.retry_after) == (is_transient, was_done, 3)


def test_a_schema_fetches_nothing(providers: ProviderServer) -> None:
    """jsonschema would follow a reference to any address, past what guards them and on the loop."""
    schema = {"type": "object", "$ref": f"{providers.address}/weatherapi/v1/schema.json"}
    with pytest.raises(Unresolvable):
        Operation(schema).check({}, "params")
    with pytest.raises(Unresolvable):
        faults_of(schema, {})
    assert not providers.script.calls


class Mirror(ExternalService):
    """Asks for a path; its reader of errors takes them for JSON, as the one in the how-to does."""

    name: ClassVar[str] = "mirror"
    description: ClassVar[str] = "Answers what the test says."
    base_url: ClassVar[str] = "https://mirror.example"
    operations: ClassVar[Mapping[str, Operation]] = {"get": Operation({"type": "object"})}

    async def perform(self, operation: str, params: Mapping[str, Any]) -> Any:
        return await self.request("GET", params["path"])

    def fault_of(self, response: httpx.Response) -> ServiceCallError:
        return ServiceCallError.of_status(response.status_code, response.headers, response.json()["message"])


ANSWERS = {
    "/broken-gzip": (b"200 OK", b"Content-Encoding: gzip\r\n", b"no gzip"),
    "/deep": (b"200 OK", b"", b"[" * 100_000),
    "/page": (b"502 Bad Gateway", b"", b"<html>Bad Gateway</html>"),
    "/far": (b"503 Away", b"Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n", b'{"message": "no"}'),
    "/echo": (b"503 Away", b"", b'{"message": "the key s3cret-key is tired"}'),
}


@pytest.mark.parametrize(
    ("path", "error", "attempts"),
    [
        ("/broken-gzip", "mirror: the answer cannot be unpacked", 1),
        ("/deep", "mirror: the answer is no JSON", 1),
        ("/page", "mirror: the provider answered 502 Bad Gateway", 2),
        ("/far", "mirror: no", 2),
        ("/echo", "mirror: the key *** is tired", 2),
    ],
)
def test_whatever_a_provider_answers_is_an_answer(
    path: str,
    error: str,
    attempts: int,
    run: Callable[[Callable[[], Awaitable[Any]]], Any],
) -> None:
    """Nothing that a provider can send raises; and what it repeats of the key is in no log of the attempts."""
    logged: list[str] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: logged.append(repr(details))])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        status, headers, body = ANSWERS[asked]
        writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\n%b\r\n%b" % (status, headers, body))
        writer.close()

    async def scenario() -> ExternalServiceResponse:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = ServiceSettings(
                api_key="s3cret-key", base_url=f"http://127.0.0.1:{port}", attempts=2, retry_wait=0
            )
            external = ExternalSettings(services={"mirror": settings}, private_hosts=("127.0.0.1",))
            async with Mirror(ServiceResources(external)) as mirror:
                return await mirror.call("get", {"path": path}, "alice")

    try:
        response = run(scenario)
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)
    assert (response.success, response.error, response.metadata["attempts"]) == (False, error, attempts)
    assert len(logged) == attempts - 1
    assert "s3cret-key" not in "".join(logged)
