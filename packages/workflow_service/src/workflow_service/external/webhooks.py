"""Sends webhooks: signed as Standard Webhooks has it, to checked addresses, without following redirects."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Sequence

import httpx

from workflow_service.domain.webhook import DueDelivery, Outcome
from workflow_service.external.addresses import AddressPolicy, ForbiddenAddressError, GuardedTransport
from workflow_service.external.faults import retry_after
from workflow_service.ports import InvalidInputError

_PREFIX = "whsec_"  # how a secret is written down
_GONE = 410
_HOST = re.compile(
    r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+"
)  # a name or an IPv6 address; httpx escapes what else there is
_MAX_PORT = 65_535
_FIELD = "options.webhook_url"  # the place in the request of what is checked

_logger = logging.getLogger(__name__)


class SignedWebhooks:
    """Fits the WebhookSender port."""

    def __init__(self, secrets: Sequence[str], policy: AddressPolicy, timeout: float) -> None:
        """Sign with keys made of ``secrets``, each user's an own one; ``timeout`` is in seconds, for an attempt.

        With several secrets each delivery has as many signatures, so that receivers can change over.
        """
        self._secrets = [secret.encode() for secret in secrets]
        self._policy = policy
        self._timeout = timeout

    def check(self, url: str) -> None:
        """Refuse what could never be sent; what a name resolves to is checked when it is.

        Raises:
            InvalidInputError: The message says what is wrong, with its place in the request.
        """
        is_unset = "cannot be used: webhooks are not set up; set WORKFLOW_WEBHOOK_SECRETS"
        fault = self._fault_of(url) if self._secrets else is_unset
        if fault is not None:
            raise InvalidInputError(f"{_FIELD} {fault}", [(_FIELD, fault)])

    def secrets_of(self, user_id: str) -> Sequence[str]:
        """Return what the user's receivers verify signatures with, the current one first."""
        return [_PREFIX + base64.b64encode(key).decode() for key in self._keys(user_id)]

    async def send(self, delivery: DueDelivery) -> Outcome:
        """Send once, and say how it went; never raises for what the receiver does.

        Cancellation: closes the connection; the receiver may have taken the delivery.
        """
        moment = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "workflow-service",
            "webhook-id": str(delivery.id),
            "webhook-timestamp": moment,
            "webhook-signature": self._signatures(delivery, moment),
        }
        # No connection is kept: they would belong to addresses, and here each may be of many users' hosts.
        transport = GuardedTransport(self._policy, keep=0)
        timer = asyncio.timeout(self._timeout)
        try:
            async with (
                timer,
                httpx.AsyncClient(transport=transport, timeout=self._timeout, trust_env=False) as client,
                client.stream("POST", delivery.url, content=delivery.body, headers=headers) as response,
            ):
                return _outcome(response)
        except ForbiddenAddressError as error:
            # The address is for the log: a user must not learn what names mean inside.
            _logger.warning("webhook %s is not sent: %s", delivery.id, error)
            return Outcome(error="the host is not at a public address")
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(error=f"no answer within {self._timeout:g} s")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            _logger.info("webhook %s was not taken: %r", delivery.id, error)
            return Outcome(error="the host cannot be reached, or broke off")

    def _keys(self, user_id: str) -> Sequence[bytes]:
        return [hmac.digest(secret, b"webhook\0" + user_id.encode(), hashlib.sha256) for secret in self._secrets]

    def _signatures(self, delivery: DueDelivery, moment: str) -> str:
        content = f"{delivery.id}.{moment}.".encode() + delivery.body
        signed = [hmac.digest(key, content, hashlib.sha256) for key in self._keys(delivery.user_id)]
        return " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signed)

    def _fault_of(self, text: str) -> str | None:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            return f"is no URL: {error}"
        host = url.raw_host.decode("ascii")
        if url.scheme not in ("http", "https") or not host:
            return "must begin with https:// and a host"
        if not _HOST.fullmatch(host) or not 0 < (url.port or 443) <= _MAX_PORT:
            return "has no host and port that could be"
        if url.userinfo:
            return "must hold no user name and no password"
        if url.fragment:
            return "must have no fragment (#…)"
        if self._policy.allows_host(host):
            return None
        if url.scheme == "http":
            return "must begin with https://"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        return None if self._policy.allows_address(address) else "is not at a public address"


def _outcome(response: httpx.Response) -> Outcome:
    status = response.status_code
    if response.is_success:
        return Outcome(status)
    if status == _GONE:
        return Outcome(status, "the receiver answered 410: it wants no more", is_final=True)
    if response.is_redirect:
        return Outcome(status, f"the receiver answered {status}: redirects are not followed")
    return Outcome(status, f"the receiver answered {status}", retry_after=retry_after(response.headers))
