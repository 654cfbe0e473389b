"""JSON Web Tokens that somebody else issues: what is believed is fixed by configuration, never by a token."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from jwt import PyJWK
from jwt.exceptions import InvalidTokenError, PyJWTError

from workflow_service.domain.identity import is_user_id
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings

_REQUIRED = ["exp", "iss", "aud", "sub"]
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_MAX_LENGTH = 8192  # characters; a token is a line of a header

_logger = logging.getLogger(__name__)


class JsonWebTokens:
    """Fits the TokenVerifier port.

    Args:
        algorithm: The one algorithm that is accepted.
        keys: What verifies tokens.
        issuer: Who must have issued them.
        audience: Whom they must be for.
        leeway: Seconds by which clocks may differ.
    """

    def __init__(
        self, algorithm: str, keys: "FixedKey | KeySet", issuer: str, audience: str, leeway: float
    ) -> None:
        self._algorithm = algorithm
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway

    def user_of(self, token: str) -> str | None:
        """Return the subject of a valid token; None for any other, and the log says why."""
        if len(token) > _MAX_LENGTH or token.count(".") != 2:
            return None
        try:
            claims = jwt.decode(
                token,
                self._keys.key_for(token),
                algorithms=[self._algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": _REQUIRED, "strict_aud": False},
            )
        except (PyJWTError, ValueError, TypeError, OverflowError) as error:
            # TypeError, OverflowError: claims of a strange type or size. The reason, and nothing of the token.
            _logger.info("a token was refused: %s", _reason(error))
            return None
        subject = claims["sub"]
        if not isinstance(subject, str) or not is_user_id(subject):
            _logger.info("a token was refused: its subject cannot name a user")
            return None
        return subject


class FixedKey:
    """One key for all tokens: a secret, or a public key as PEM."""

    def __init__(self, key: str) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path, algorithm: str) -> "FixedKey":
        """Read a public key.

        Raises:
            InvalidSettingError: The file holds no public key for ``algorithm``; the message names the setting.
        """
        try:
            text = path.read_text(encoding="ascii")
            jwt.get_algorithm_by_name(algorithm).prepare_key(text)
            if "PRIVATE" in text:
                raise ValueError("it is a private key, which does not belong here")
        except (OSError, ValueError, TypeError, PyJWTError) as error:
            raise InvalidSettingError(
                f"WORKFLOW_JWT_PUBLIC_KEY_FILE={path} holds no public key for {algorithm}: {error}; "
                "it must be PEM, as openssl pkey -pubout writes it"
            ) from error
        return cls(text)

    def key_for(self, _token: str) -> str:
        """Return the key."""
        return self._key


class KeySet:
    """The keys of a JWKS file, which is read again when it changes: issuers change their keys."""

    def __init__(self, path: Path, algorithm: str) -> None:
        """Read the keys.

        Raises:
            InvalidSettingError: The file holds no key for ``algorithm``; the message names the setting.
        """
        self._path = path
        self._algorithm = algorithm
        self._seen = self._stamp()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise InvalidSettingError(
                f"WORKFLOW_JWT_JWKS_FILE={path} holds no key for {algorithm}: {error}; "
                'it must be the issuer\'s {"keys": [...]}'
            ) from error

    def key_for(self, token: str) -> PyJWK:
        """Return the key that a token names; with one key alone in the set, a token need not name it.

        Raises:
            InvalidTokenError: There is no such key.
        """
        self._look_again()
        key_id = jwt.get_unverified_header(token).get("kid")
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(key_id, str) or key_id not in self._keys:
            raise InvalidTokenError("no key of the set has the token's kid")
        return self._keys[key_id]

    def _look_again(self) -> None:
        if (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            _logger.error("WORKFLOW_JWT_JWKS_FILE has changed and cannot be used, the keys before stay: %s", error)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> Mapping[str, PyJWK]:
        document: Any = json.loads(self._path.read_text(encoding="utf-8"))  # Any: JSON of the issuer
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ValueError('it is no {"keys": [...]}')
        found: dict[str, PyJWK] = {}
        for position, key in enumerate(document["keys"]):
            if isinstance(key, dict) and self._fits(key):
                try:
                    found[str(key.get("kid", position))] = PyJWK(key, self._algorithm)
                except PyJWTError as error:
                    raise ValueError(f"key {position} cannot be read: {error}") from error
        if not found:
            raise ValueError("no key of its type and use is in it")
        return found

    def _fits(self, key: Mapping[str, Any]) -> bool:
        return (
            key.get("kty") == _KEY_TYPES.get(self._algorithm[:2])
            and key.get("use", "sig") == "sig"
            and key.get("alg", self._algorithm) == self._algorithm
        )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, PyJWTError) else type(error).__name__


def token_verifier(settings: Settings) -> JsonWebTokens | None:
    """Return what verifies tokens; None where no issuer is configured. Raises InvalidSettingError."""
    algorithm, issuer, audience = settings.jwt_algorithm, settings.jwt_issuer, settings.jwt_audience
    if algorithm is None or issuer is None or audience is None:
        return None
    keys: FixedKey | KeySet
    if settings.jwt_secret is not None:
        keys = FixedKey(settings.jwt_secret.get_secret_value())
    elif settings.jwt_public_key_file is not None:
        keys = FixedKey.of_file(settings.jwt_public_key_file, algorithm)
    else:
        assert settings.jwt_jwks_file is not None  # the settings see to it that there is one of the three
        keys = KeySet(settings.jwt_jwks_file, algorithm)
    return JsonWebTokens(algorithm, keys, issuer, audience, settings.jwt_leeway)
