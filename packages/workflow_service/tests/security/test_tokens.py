"""JSON Web Tokens: what is believed, and everything that is not."""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import SecretStr, ValidationError

from workflow_service.gateways.json_web_tokens import token_verifier
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings

SECRET = "a secret of at least sixty-four bytes, so that every hash of HS fits"
ISSUER, AUDIENCE = "https://issuer.example", "workflow-service"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(private):
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def jwk(private, algorithm, **more):
    return json.loads(algorithm.to_jwk(private.public_key())) | more


def claims(**changes):
    now = datetime.now(UTC)
    made = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": now + timedelta(minutes=5)} | changes
    return {name: value for name, value in made.items() if value is not None}


def token(key=SECRET, algorithm="HS256", headers=None, **changes):
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


@pytest.fixture
def verifier(tmp_path):
    """Make what bootstrap makes of settings for tokens."""

    def make(algorithm="HS256", **settings):
        if algorithm.startswith("HS"):
            settings.setdefault("jwt_secret", SecretStr(SECRET))
        settings = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_leeway": 0} | settings
        return token_verifier(
            Settings(database_url="postgresql://x", broker_url="redis://x", jwt_algorithm=algorithm, **settings)
        )

    return make


@pytest.fixture
def public_key(tmp_path):
    def write(private):
        path = tmp_path / "public.pem"
        path.write_bytes(pem(private))
        return path

    return write


@pytest.fixture
def key_set(tmp_path):
    def write(*keys):
        path = tmp_path / "jwks.json"
        draft = tmp_path / "draft"
        draft.write_text(json.dumps({"keys": keys}))
        draft.replace(path)
        return path

    return write


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("HS256", SECRET), ("HS512", SECRET), ("RS256", RSA), ("PS256", RSA), ("ES256", EC), ("EdDSA", ED)],
)
def test_a_valid_token_is_its_subjects(verifier, public_key, algorithm, key):
    """For a secret that is shared and for public keys of each kind; an audience may be one of several."""
    settings = {} if key is SECRET else {"jwt_public_key_file": public_key(key)}
    verify = verifier(algorithm, **settings).user_of
    assert verify(token(key, algorithm)) == "alice"
    assert verify(token(key, algorithm, aud=["other", AUDIENCE])) == "alice"
    assert verify(token(key, algorithm, sub="auth0|5f7c")) == "auth0|5f7c"


FORGED = {
    "expired": {"exp": datetime.now(UTC) - timedelta(seconds=1)},
    "without expiry": {"exp": None},
    "an expiry that is no number": {"exp": "never"},
    "an endless expiry": {"exp": float("inf")},
    "not yet valid": {"nbf": datetime.now(UTC) + timedelta(days=1)},
    "issued in the future": {"iat": datetime.now(UTC) + timedelta(days=1)},
    "another audience": {"aud": "other"},
    "a part of the audience": {"aud": AUDIENCE[:-1]},
    "without audience": {"aud": None},
    "audience of another type": {"aud": {"x": AUDIENCE}},
    "another issuer": {"iss": ISSUER + "/"},
    "without issuer": {"iss": None},
    "without subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject of control characters": {"sub": "alice\nbob"},
    "subject with NUL": {"sub": "ali\0ce"},
    "subject that is long": {"sub": "x" * 256},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_token_that_proves_nothing_is_refused(verifier, what, caplog):
    """Signed well, and yet no proof; the log says why and holds nothing of the token."""
    forged = token(**FORGED[what])
    with caplog.at_level("INFO"):
        assert verifier().user_of(forged) is None
    assert "a token was refused" in caplog.text
    assert forged.split(".")[2] not in caplog.text


def test_a_subject_that_is_no_text_is_refused(verifier):
    """PyJWT's own encoder refuses to make some of these, so they are signed by hand."""
    signer = jwt.api_jws.PyJWS()
    for subject in (7, ["alice"], {"a": 1}, True, None):
        payload = json.dumps(claims(exp=int(time.time()) + 60) | {"sub": subject}).encode()
        assert verifier().user_of(signer.encode(payload, SECRET, "HS256")) is None


def unsigned(header, body=None):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(body or claims(exp=int(time.time()) + 60))}."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, "HS256", ["none"], 7])
def test_an_unsigned_token_is_refused(verifier, algorithm):
    """Whatever its header calls the algorithm, and with a key of whatever kind."""
    assert verifier().user_of(unsigned({"alg": algorithm, "typ": "JWT"})) is None
    assert verifier().user_of(unsigned({"typ": "JWT"})) is None


def test_a_public_key_is_no_secret(verifier, public_key, key_set):
    """The confusion of algorithms: a token signed by HS256 with the public key's text, which everybody has."""
    path = public_key(RSA)
    for verify in (
        verifier("RS256", jwt_public_key_file=path).user_of,
        verifier("RS256", jwt_jwks_file=key_set(jwk(RSA, RSAAlgorithm, kid="a"))).user_of,
    ):
        for secret in (pem(RSA), pem(RSA).strip(), json.dumps(jwk(RSA, RSAAlgorithm)).encode()):
            # By hand: PyJWT does not sign with a PEM.
            header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"a"}').rstrip(b"=")
            body = base64.urlsafe_b64encode(json.dumps(claims(exp=int(time.time()) + 60)).encode()).rstrip(b"=")
            signature = hmac.new(secret, header + b"." + body, hashlib.sha256).digest()
            forged = b".".join((header, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
            assert verify(forged) is None


def test_another_algorithm_of_the_same_key_is_refused(verifier, public_key):
    """What is accepted is one algorithm, not a family."""
    assert verifier("RS256", jwt_public_key_file=public_key(RSA)).user_of(token(RSA, "RS512")) is None
    assert verifier("RS256", jwt_public_key_file=public_key(RSA)).user_of(token(RSA, "PS256")) is None
    assert verifier("HS256").user_of(token(algorithm="HS512")) is None


def test_a_token_brings_no_key_of_its_own(verifier, public_key, key_set):
    """jwk, jku, x5u and kid in the header of a token are not followed."""
    own = jwk(OTHER_RSA, RSAAlgorithm)
    headers = (
        {"jwk": own},
        {"jku": "http://127.0.0.1:1/jwks.json"},
        {"x5u": "http://127.0.0.1:1/x.pem"},
        {"kid": "../../../../dev/null"},
        {"kid": "a' UNION SELECT 'x"},
        {"kid": "b"},
    )
    for header in headers:
        forged = token(OTHER_RSA, "RS256", headers=header)
        assert verifier("RS256", jwt_public_key_file=public_key(RSA)).user_of(forged) is None
        assert verifier("RS256", jwt_jwks_file=key_set(jwk(RSA, RSAAlgorithm, kid="a"))).user_of(forged) is None


def test_a_changed_token_is_refused(verifier):
    """Every part of it is under the signature; what is no token at all is refused too."""
    good = token()
    header, body, signature = good.split(".")
    other = token(sub="bob").split(".")[1]
    broken = (f"{header}.{other}.{signature}", f"{header}.{body}.", f"{header}.{body}", f"{good}.x", "..", "a.b.c")
    for forged in (*broken, good + "x", "." + good, good.replace(".", ".."), "x" * 9000 + ".x.x", ""):
        assert verifier().user_of(forged) is None
    assert verifier().user_of(good) == "alice"


def test_clocks_may_differ_by_the_leeway(verifier):
    """And no more."""
    late = token(exp=datetime.now(UTC) - timedelta(seconds=20))
    assert verifier(jwt_leeway=60).user_of(late) == "alice"
    assert verifier(jwt_leeway=5).user_of(late) is None


def test_keys_of_a_set_are_told_apart_and_replaced(verifier, key_set, caplog):
    """By kid; when the file changes, the old keys open nothing, and a broken file changes nothing."""
    path = key_set(jwk(RSA, RSAAlgorithm, kid="a"), jwk(EC, ECAlgorithm, kid="e"))
    verify = verifier("RS256", jwt_jwks_file=path).user_of
    old, new = token(RSA, "RS256", {"kid": "a"}), token(OTHER_RSA, "RS256", {"kid": "b"})
    assert verify(old) == "alice"
    assert verify(token(RSA, "RS256")) == "alice"  # the only RSA key of the set
    assert verify(new) is None
    key_set(jwk(RSA, RSAAlgorithm, kid="a"), jwk(OTHER_RSA, RSAAlgorithm, kid="b"))
    assert (verify(old), verify(new)) == ("alice", "alice")
    assert verify(token(RSA, "RS256")) is None  # which key, it does not say
    path.write_text("{")
    assert (verify(old), verify(new)) == ("alice", "alice")
    assert "WORKFLOW_JWT_JWKS_FILE" in caplog.text
    key_set(jwk(OTHER_RSA, RSAAlgorithm, kid="b"))
    assert (verify(old), verify(new)) == (None, "alice")
    path.unlink()
    assert verify(new) == "alice"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jwt_secret": None}, "WORKFLOW_JWT_SECRET"),
        ({"jwt_issuer": None}, "WORKFLOW_JWT_ISSUER"),
        ({"jwt_audience": None}, "WORKFLOW_JWT_AUDIENCE"),
        ({"jwt_audience": ""}, "at least 1 character"),
        ({"jwt_secret": SecretStr("short")}, "at least 32 bytes"),
        ({"jwt_algorithm": "none"}, "HS256"),
        ({"jwt_algorithm": "RS256"}, "WORKFLOW_JWT_PUBLIC_KEY_FILE"),
        ({"jwt_jwks_file": "x.json"}, "WORKFLOW_JWT_SECRET"),
        ({"jwt_algorithm": None}, "WORKFLOW_JWT_ALGORITHM"),
        ({"jwt_leeway": 3600}, "less than or equal to 300"),
    ],
)
def test_settings_that_would_prove_nothing_are_refused(changes, words):
    """At the start, with what to set; no message holds a secret."""
    chosen = {
        "jwt_algorithm": "HS256",
        "jwt_secret": SecretStr(SECRET),
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
    }
    with pytest.raises(ValidationError, match=words) as raised:
        Settings(database_url="postgresql://x", broker_url="redis://x", **chosen | changes)
    assert SECRET not in str(raised.value)


def test_files_without_a_fitting_key_are_named(verifier, public_key, key_set, tmp_path):
    """At the start, with the setting, the file and what it should be."""
    private = tmp_path / "private.pem"
    private.write_bytes(
        RSA.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for path in (tmp_path / "none.pem", public_key(EC), private):
        with pytest.raises(InvalidSettingError, match="WORKFLOW_JWT_PUBLIC_KEY_FILE"):
            verifier("RS256", jwt_public_key_file=path)
    for keys in ((), (jwk(EC, ECAlgorithm),), ({"kty": "RSA", "n": "x"},), ("x",)):
        with pytest.raises(InvalidSettingError, match="WORKFLOW_JWT_JWKS_FILE"):
            verifier("RS256", jwt_jwks_file=key_set(*keys))
    with pytest.raises(InvalidSettingError, match="WORKFLOW_JWT_JWKS_FILE"):
        verifier("RS256", jwt_jwks_file=tmp_path / "none.json")
