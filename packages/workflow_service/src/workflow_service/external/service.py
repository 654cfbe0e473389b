"""The base of external services: what a plug-in fills in, and what it gets for it."""

import asyncio
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx

from workflow_service.domain.external import ExternalServiceResponse, ServiceDescription
from workflow_service.domain.run import JsonObject
from workflow_service.external.addresses import ForbiddenAddressError, GuardedTransport
from workflow_service.external.answers import Question
from workflow_service.external.attempts import Course, try_until_answered
from workflow_service.external.faults import ServiceCallError
from workflow_service.external.operation import Operation, canonical
from workflow_service.external.resources import ServiceResources, current_resources
from workflow_service.ports import InvalidInputError
from workflow_service.settings import ServiceSettings

_MAX_REDIRECTS = 3
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SHOWN = 500  # characters of a provider's message

_logger = logging.getLogger(__name__)


class ServiceNotOpenError(RuntimeError):
    """A service was used outside its ``async with``, entered twice, or used from another loop than its own."""


class ExternalService(ABC):
    """A service that workflows ask over HTTP: ``async with WeatherApi() as service: await service.call(…)``.

    A plug-in sets the class variables, writes `perform`, and where needed `authenticate` and `fault_of`. It gets
    checked parameters, an HTTP client of its own context and loop, closed however the body ends, the cache, the
    rate limit, retries, the circuit breaker, and connections to public addresses of its own host only.
    """

    name: ClassVar[str]
    """Lower case letters, digits and underscores; settings are named after it."""
    description: ClassVar[str]
    """One sentence for the list of services."""
    base_url: ClassVar[str]
    """Where the provider is; ``WORKFLOW_SERVICES__<NAME>__BASE_URL`` says otherwise."""
    operations: ClassVar[Mapping[str, Operation]]
    needs_key: ClassVar[bool] = True
    """Whether the service is of no use without an API key."""

    def __init__(self, resources: ServiceResources | None = None) -> None:
        """Make a service, closed as yet. Without ``resources`` it shares the process's."""
        self._resources = resources or current_resources()
        self.settings: ServiceSettings = self._resources.settings_of(self.name)
        self._base = (self.settings.base_url or self.base_url).rstrip("/")
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    async def perform(self, operation: str, params: JsonObject) -> Any:  # Any: JSON
        """Ask the provider once, with `request`, and return the data of the answer.

        Called for each attempt. ``params`` fit the operation's schema.

        Raises:
            ServiceCallError: The provider refused, or its answer makes no sense.
        """

    def authenticate(self, request: httpx.Request, key: str) -> httpx.Request:
        """Return the request with the API key; by default as a bearer token.

        The last thing before the network: nothing that logs requests has seen the key.
        """
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    def fault_of(self, response: httpx.Response) -> ServiceCallError:
        """Return what an answer that is no success means. By default, what its status says."""
        message = f"the provider answered {response.status_code} {response.reason_phrase}"
        return ServiceCallError.of_status(response.status_code, response.headers, message)

    @classmethod
    def describe(cls, settings: ServiceSettings) -> ServiceDescription:
        """Return what the service offers, and whether ``settings`` suffice for it."""
        return ServiceDescription(
            name=cls.name,
            description=cls.description,
            operations={name: operation.params for name, operation in cls.operations.items()},
            is_configured=not cls.needs_key or settings.api_key is not None,
        )

    async def __aenter__(self) -> Self:
        """Open the HTTP client, on the running loop.

        Raises:
            InvalidInputError: The service has no API key; the message says what to set.
            ServiceNotOpenError: It is open already.
        """
        if self._client is not None:
            raise ServiceNotOpenError(f"service {self.name!r} is open already; make one for each context")
        if self.needs_key and self.settings.api_key is None:
            raise InvalidInputError(
                f"service {self.name!r} is not configured; set WORKFLOW_SERVICES__{self.name.upper()}__API_KEY"
            )
        self._loop = asyncio.get_running_loop()
        self._client = httpx.AsyncClient(
            transport=_OwnHostTransport(GuardedTransport(self._resources.policy), self, self._base),
            timeout=self.settings.attempt_timeout,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the HTTP client and its connections, whatever happened."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.aclose()

    async def call(
        self, operation: str, params: JsonObject, user_id: str, cache_ttl: float | None = None
    ) -> ExternalServiceResponse:
        """Ask the service, and say how it went.

        Args:
            operation: One of `operations`.
            params: What fits the operation's schema.
            user_id: For whom: answers are kept for one user each.
            cache_ttl: Seconds; an answer that young is taken from the cache, and a new one is kept.

        Returns:
            The answer. What the provider refuses, or fails at after the retries, has ``success=False``, the reason
            as ``error``, and in ``metadata`` its ``code``, ``status`` and whether it is ``transient``.

        Raises:
            InvalidInputError: No such operation, or parameters that it does not take. Nothing was sent.
            ServiceNotOpenError: The service is not open, or open on another loop. Nothing was sent.

        Cancellation: ends the request and closes its connection.
        """
        self._open_client()
        asked = self._operation(operation)
        asked.check(params, "params")
        what = canonical({"base": self._base, "operation": operation, "params": params})

        async def fetch(timeout: float) -> ExternalServiceResponse:
            return await self._fetch(operation, asked, params, timeout)

        timeout = self.settings.timeout
        if not cache_ttl:
            return await fetch(timeout)
        if not asked.is_idempotent:
            raise InvalidInputError(
                f"operation {operation!r} of {self.name!r} changes something; it is never cached"
            )
        if cache_ttl < 0:
            raise InvalidInputError(f"cache_ttl must not be negative, got {cache_ttl!r}")
        answer = await self._resources.answers.get(Question(user_id, self.name, what), cache_ttl, fetch, timeout)
        return answer or self._without_answer(operation)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
    ) -> Any:  # Any: JSON
        """Send a request to a path below the base URL, with the API key, and return the JSON of the answer.

        Redirects are followed within the same host. Query and headers must hold no secrets.

        Raises:
            ServiceCallError: The service cannot be reached or broke off; its answer is no success, no JSON, or has
                more than ``max_response_bytes``.
        """
        client = self._open_client()
        try:
            url = f"{self._base}{path}"
            request = client.build_request(method, url, params=query, headers=headers, json=body)
            for _ in range(_MAX_REDIRECTS + 1):
                response = await client.send(request, stream=True)
                try:
                    content = await self._read(response)
                finally:
                    await response.aclose()
                if response.next_request is None:
                    return self._decode(response, content)
                request = response.next_request
                if _origin(request.url) != _origin(httpx.URL(self._base)):
                    raise ServiceCallError(
                        f"the provider redirects to another host, {request.url.host}", "redirects"
                    )
        except ForbiddenAddressError as error:
            raise ServiceCallError(str(error), "forbidden-address", was_done=False) from error
        except httpx.InvalidURL as error:
            raise ServiceCallError(f"the path {path[:100]!r} makes no address: {error}", "bad-address") from error
        except httpx.DecodingError as error:
            raise ServiceCallError("the answer cannot be unpacked", "bad-answer") from error
        except httpx.TransportError as error:
            message = f"the provider cannot be reached: {str(error) or type(error).__name__}"
            was_done = not isinstance(error, _NOTHING_SENT)
            raise ServiceCallError(
                self._redact(message), "unreachable", is_transient=True, was_done=was_done
            ) from error
        raise ServiceCallError("the provider redirects without end", "redirects")

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise ServiceNotOpenError(f"service {self.name!r} is not open; use it within `async with`")
        if asyncio.get_running_loop() is not self._loop:
            raise ServiceNotOpenError(f"service {self.name!r} is open on another loop; open one on this loop")
        return self._client

    def _operation(self, name: str) -> Operation:
        try:
            return self.operations[name]
        except KeyError:
            known = ", ".join(self.operations)
            raise InvalidInputError(f"service {self.name!r} has no operation {name!r}; it has: {known}") from None

    def _without_answer(self, operation: str) -> ExternalServiceResponse:
        seconds = self.settings.timeout
        error = f"{self.name}: no answer within {seconds:g} s, waiting for others who asked the same"
        metadata = {"service": self.name, "operation": operation, "attempts": 0, "seconds": seconds}
        metadata |= {"code": "timeout", "status": None, "transient": True}
        return ExternalServiceResponse(success=False, data=None, metadata=metadata, error=error)

    async def _fetch(
        self, name: str, operation: Operation, params: JsonObject, timeout: float
    ) -> ExternalServiceResponse:
        course = Course()
        began = time.monotonic()
        metadata: dict[str, Any] = {"service": self.name, "operation": name}
        error: str | None = None
        data = None
        try:
            data = await try_until_answered(
                lambda: self.perform(name, params),
                settings=self.settings,
                timeout=timeout,
                limits=self._resources.limits_of(self.name),
                is_idempotent=operation.is_idempotent,
                course=course,
            )
        except ServiceCallError as fault:
            error = f"{self.name}: {self._redact(fault.message)}"
            metadata |= {"code": fault.code, "status": fault.status, "transient": fault.is_transient}
        metadata |= {"attempts": course.attempts, "seconds": round(time.monotonic() - began, 3)}
        return ExternalServiceResponse(error is None, data, metadata=metadata, error=error)

    async def _read(self, response: httpx.Response) -> bytes:
        bound = self.settings.max_response_bytes
        content = bytearray()
        async for piece in response.aiter_bytes():  # decoded: what is bounded is what it unpacks to
            content += piece
            if len(content) > bound:
                raise ServiceCallError(
                    f"the answer is larger than {bound} bytes", "too-large", response.status_code
                )
        return bytes(content)

    def _decode(self, response: httpx.Response, content: bytes) -> Any:  # Any: JSON
        if not response.is_success:
            # A response of its own: this one's body was read piece by piece, so it has no content.
            raise self._fault(httpx.Response(response.status_code, headers=_plain(response), content=content))
        try:
            return json.loads(content, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise ServiceCallError("the answer is no JSON", "bad-answer", response.status_code) from None

    def _fault(self, response: httpx.Response) -> ServiceCallError:
        try:
            fault = self.fault_of(response)
        except Exception as error:
            # Not of the provider's making: a proxy in front of it answers with a page of its own.
            _logger.info("service %s: fault_of could not read an answer: %s", self.name, type(error).__name__)
            fault = ExternalService.fault_of(self, response)
        fault.message = self._redact(fault.message)
        fault.args = (fault.message, *fault.args[1:])  # attempts are logged with them
        return fault

    def _redact(self, text: str) -> str:
        key = self.settings.api_key
        secret = key.get_secret_value() if key else ""
        return (text.replace(secret, "***") if secret else text)[:_SHOWN]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")  # Python's parser takes NaN and infinities; PostgreSQL does not


def _plain(response: httpx.Response) -> dict[str, str]:
    """Return the headers without what describes the bytes on the wire."""
    gone = {"content-encoding", "content-length", "transfer-encoding"}
    return {name: value for name, value in response.headers.items() if name not in gone}


class _OwnHostTransport(httpx.AsyncBaseTransport):
    """Sends to the service's own host only, and adds the API key: below the client, which logs URLs."""

    def __init__(self, inner: httpx.AsyncBaseTransport, service: ExternalService, base: str) -> None:
        self._inner = inner
        self._service = service
        self._origin = _origin(httpx.URL(base))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if _origin(request.url) != self._origin:
            raise ForbiddenAddressError(f"{request.url.host} is not the host of service {self._service.name!r}")
        key = self._service.settings.api_key
        if key is not None:
            request = self._service.authenticate(_copy(request), key.get_secret_value())
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host.lower(), url.port


def _copy(request: httpx.Request) -> httpx.Request:
    return httpx.Request(
        request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions
    )
