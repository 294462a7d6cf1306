"""Known attacks on JSON Web Tokens, through the consume endpoint: none accepted, none a 500."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governance.models import ApprovalToken, TokenKey
from governance.tokens.keys import open_key
from tests.client import Api
from tests.factories.tenants import World
from tests.preflight import build_preflight
from tests.reviews import approve, open_shop
from valdrix.kernel.db import reading

FOREIGN = Ed25519PrivateKey.generate()


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def part(document: Any) -> str:
    return b64(document if isinstance(document, bytes) else json.dumps(document).encode())


class Real:
    """A valid token in its parts, with the key that signed it."""

    def __init__(self, text: str, key: Ed25519PrivateKey) -> None:
        self.text, self.key = text, key
        self.head, self.body, self.signature = text.split(".")
        self.header = json.loads(unb64(self.head))
        self.claims = json.loads(unb64(self.body))

    def signed(self, header: Any = None, claims: Any = None) -> str:
        """Sign other contents with the real key, as if it were stolen."""
        head, body = part(header or self.header), part(claims or self.claims)
        return f"{head}.{body}.{b64(self.key.sign(f'{head}.{body}'.encode()))}"

    def hmac(self, secret: bytes, digest: Any = hashlib.sha256, alg: str = "HS256") -> str:
        head = part({**self.header, "alg": alg})
        signature = hmac.new(secret, f"{head}.{self.body}".encode(), digest).digest()
        return f"{head}.{self.body}.{b64(signature)}"

    def foreign(self, **header: Any) -> str:
        head = part({**self.header, **header})
        return f"{head}.{self.body}.{b64(FOREIGN.sign(f'{head}.{self.body}'.encode()))}"

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


def es256(real: Real) -> str:
    private = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(real.claims, private, algorithm="ES256", headers={"kid": real.header["kid"]})


FOREIGN_JWK = {"kty": "OKP", "crv": "Ed25519", "x": b64(FOREIGN.public_key().public_bytes_raw())}

ATTACKS: dict[str, Callable[[Real], str]] = {
    # no signature at all
    "alg none": lambda r: f"{part({**r.header, 'alg': 'none'})}.{r.body}.",
    "alg None": lambda r: f"{part({**r.header, 'alg': 'None'})}.{r.body}.",
    "alg NONE kept signature": lambda r: (
        f"{part({**r.header, 'alg': 'NONE'})}.{r.body}.{r.signature}"
    ),
    "alg nOnE by PyJWT": lambda r: jwt.encode(r.claims, None, algorithm="none"),
    "stripped signature": lambda r: f"{r.head}.{r.body}.",
    "two parts": lambda r: f"{r.head}.{r.body}",
    "zero signature": lambda r: f"{r.head}.{r.body}.{b64(bytes(64))}",
    "short signature": lambda r: f"{r.head}.{r.body}.{b64(unb64(r.signature)[:63])}",
    "long signature": lambda r: f"{r.head}.{r.body}.{b64(unb64(r.signature) + bytes(1))}",
    "flipped signature": lambda r: (
        f"{r.head}.{r.body}.{b64(bytes([unb64(r.signature)[0] ^ 1]) + unb64(r.signature)[1:])}"
    ),
    # another algorithm
    "HS256 with the public key": lambda r: r.hmac(r.public),
    "HS256 with the PEM": lambda r: r.hmac(r.pem),
    "HS256 with the key set's x": lambda r: r.hmac(b64(r.public).encode()),
    "HS256 with an empty secret": lambda r: r.hmac(b""),
    "HS384": lambda r: r.hmac(r.public, hashlib.sha384, "HS384"),
    "HS512": lambda r: r.hmac(r.pem, hashlib.sha512, "HS512"),
    "HMAC under EdDSA's name": lambda r: r.hmac(r.public, alg="EdDSA"),
    "ES256": es256,
    "Ed25519 by its other name": lambda r: r.signed({**r.header, "alg": "Ed25519"}),
    "alg in another case": lambda r: r.signed({**r.header, "alg": "eddsa"}),
    "alg missing": lambda r: r.signed(without(r.header, "alg")),
    "alg a list": lambda r: r.signed({**r.header, "alg": ["EdDSA"]}),
    # another key
    "a foreign key": lambda r: r.foreign(),
    "embedded jwk": lambda r: r.foreign(jwk=FOREIGN_JWK),
    "embedded jwk, real signature": lambda r: r.signed({**r.header, "jwk": FOREIGN_JWK}),
    "jku": lambda r: r.foreign(jku="https://attacker.test/jwks.json"),
    "x5u": lambda r: r.foreign(x5u="https://attacker.test/cert.pem"),
    "x5c": lambda r: r.foreign(x5c=[base64.b64encode(b"cert").decode()]),
    "unknown kid": lambda r: r.foreign(kid="unknown"),
    "kid of a path": lambda r: r.foreign(kid="../../../../dev/null"),
    "kid of SQL": lambda r: r.foreign(kid="x' UNION SELECT 'key' --"),
    "kid of a command": lambda r: r.foreign(kid="key|whoami"),
    "kid with NUL": lambda r: r.foreign(kid="a\u0000b"),
    "kid empty": lambda r: r.foreign(kid=""),
    "kid huge": lambda r: r.foreign(kid="k" * 3000),
    "kid a number": lambda r: r.foreign(kid=7),
    "kid an object": lambda r: r.foreign(kid={"a": 1}),
    "kid null": lambda r: r.foreign(kid=None),
    "kid missing": lambda r: r.signed(without(r.header, "kid")),
    # header tricks
    "crit": lambda r: r.signed({**r.header, "crit": ["exp"], "exp": 1}),
    "b64 false, critical": lambda r: r.signed({**r.header, "b64": False, "crit": ["b64"]}),
    "crit empty": lambda r: r.signed({**r.header, "crit": []}),
    "zip": lambda r: r.signed({**r.header, "zip": "DEF"}),
    "cty nested": lambda r: r.signed({**r.header, "cty": "JWT"}),
    "typ JWT": lambda r: r.signed({**r.header, "typ": "JWT"}),
    "typ of an access token": lambda r: r.signed({**r.header, "typ": "at+jwt"}),
    "typ missing": lambda r: r.signed(without(r.header, "typ")),
    "alg twice": lambda r: r.signed(
        json.dumps(r.header).replace("{", '{"alg":"none",', 1).encode()
    ),
    "header no object": lambda r: r.signed([1]),
    "header no JSON": lambda r: r.signed(b"{"),
    "header deep": lambda r: r.signed(b'{"a":' * 500 + b"1" + b"}" * 500),
    # claims
    "another tenant": lambda r: r.signed(
        claims={**r.claims, "tenant_id": "00000000-0000-7000-8000-000000000001"}
    ),
    "another jti": lambda r: r.signed(
        claims={**r.claims, "jti": "00000000-0000-7000-8000-000000000001"}
    ),
    "a higher ceiling": lambda r: r.signed(
        claims={**r.claims, "max_monthly_delta_usd": "9999.0000"}
    ),
    "another project": lambda r: r.signed(claims={**r.claims, "project_id": "other"}),
    "a later end": lambda r: r.signed(claims={**r.claims, "exp": r.claims["exp"] + 3600}),
    "another issuer": lambda r: r.signed(claims={**r.claims, "iss": "attacker"}),
    "another audience": lambda r: r.signed(claims={**r.claims, "aud": "other"}),
    "audience a list": lambda r: r.signed(claims={**r.claims, "aud": [r.claims["aud"]]}),
    "audience of two": lambda r: r.signed(claims={**r.claims, "aud": [r.claims["aud"], "x"]}),
    "another token type": lambda r: r.signed(claims={**r.claims, "token_type": "session"}),
    "claims changed": lambda r: (
        f"{r.head}.{part({**r.claims, 'max_monthly_delta_usd': '9.0000'})}.{r.signature}"
    ),
    "a claim twice": lambda r: r.signed(
        claims=json.dumps(r.claims).replace("{", '{"exp":9999999999,', 1).encode()
    ),
    "one claim more": lambda r: r.signed(claims={**r.claims, "admin": True}),
    "exp NaN": lambda r: r.signed(claims=json.dumps({**r.claims, "exp": float("nan")}).encode()),
    "exp infinite": lambda r: r.signed(
        claims=json.dumps({**r.claims, "exp": float("inf")}).encode()
    ),
    "exp a string": lambda r: r.signed(claims={**r.claims, "exp": "9999999999"}),
    "exp a truth value": lambda r: r.signed(claims={**r.claims, "exp": True}),
    "exp beyond any clock": lambda r: r.signed(claims={**r.claims, "exp": 10**30}),
    "nbf in the future": lambda r: r.signed(claims={**r.claims, "nbf": r.claims["exp"]}),
    "iat in the future": lambda r: r.signed(claims={**r.claims, "iat": r.claims["exp"] - 1}),
    "claims no object": lambda r: r.signed(claims=[1, 2]),
    "claims empty": lambda r: r.signed(claims=b"{}"),
    **{
        f"without {name}": (lambda r, name=name: r.signed(claims=without(r.claims, name)))
        for name in ("exp", "iat", "nbf", "iss", "aud", "jti", "token_type", "tenant_id")
    },
    # spellings and sizes
    "trailing =": lambda r: f"{r.text}=",
    "padded parts": lambda r: ".".join(f"{one}=" for one in r.text.split(".")),
    "other spare bits": lambda r: (
        f"{r.head}.{r.body}.{r.signature[:-1]}{chr(ord(r.signature[-1]) + 1)}"
    ),
    "standard base64": lambda r: (
        f"{r.head}.{r.body}.{base64.b64encode(unb64(r.signature)).decode()}"
    ),
    "white space inside": lambda r: r.text.replace(".", ". ", 1),
    "a fourth part": lambda r: f"{r.text}.x",
    "five parts, as a JWE": lambda r: f"{r.text}.x.y",
    "JSON serialisation": lambda r: json.dumps(
        {"protected": r.head, "payload": r.body, "signature": r.signature}
    ),
    "Bearer before it": lambda r: f"Bearer {r.text}",
    "dots only": lambda r: "..",
    "not ASCII": lambda r: r.text.replace(".", "․"),
    "long": lambda r: "a" * 4000 + "." + "b" * 4000 + ".c",
}


@pytest.fixture
def real(tenant: World) -> Real:
    shop = open_shop(tenant)
    shop.budget("5000.00")
    asked = Api().post("gate/terraform/preflight", build_preflight(), key=tenant.key).json()
    approval_id = asked["approval_request_id"]
    approve(tenant.owner, approval_id)
    claimed = Api().post(f"approvals/{approval_id}/token", {}, key=tenant.key).json()
    text = claimed["approval_token"]
    kid = json.loads(unb64(text.split(".")[0]))["kid"]
    made = Real(text, open_key(TokenKey.objects.get(pk=kid)).private)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def present(world: World, text: str, fingerprint: str) -> Any:
    body = {
        "approval_token": text,
        "monthly_delta_usd": "1.00",
        "expected_request_fingerprint": fingerprint,
    }
    return Api().post("approvals/consume", body, key=world.key)


def test_no_attack_is_accepted_and_none_breaks_the_server(tenant: World, real: Real) -> None:
    fingerprint = real.asked["request_fingerprint"]  # type: ignore[attr-defined]
    assert len(ATTACKS) >= 80
    answers = {}
    for name, attack in ATTACKS.items():
        text = attack(real)
        assert text != real.text, name
        response = present(tenant, text, fingerprint)
        answers[name] = (response.status_code, response.json()["code"])
    wrong = {name: one for name, one in answers.items() if one[0] not in {401, 422}}
    assert wrong == {}
    assert {code for status, code in answers.values() if status == 401} == {
        "approval_token_invalid"
    }, "a forger learns nothing from the code"
    with reading(tenant.id):
        assert ApprovalToken.objects.get(tenant_id=tenant.id).status == "live"
    assert present(tenant, real.text, fingerprint).status_code == 200, "the real one still works"


def test_an_api_key_is_no_token_and_a_token_no_api_key(tenant: World, real: Real) -> None:
    fingerprint = real.asked["request_fingerprint"]  # type: ignore[attr-defined]
    assert present(tenant, tenant.key, fingerprint).status_code == 401
    assert Api().get("approvals/queue", key=real.text).status_code == 401
