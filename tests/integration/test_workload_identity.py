"""Workload identity: tokens of CI jobs and service accounts, and the ways to forge one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.db import connection

from billing.plans.domain import GROWTH
from enforcement.models import Decision
from governance.api import authentication, workload_tokens
from governance.api.workload_tokens import find_workload_principal
from governance.models import Approval, AuditEntry, Review, User, WorkloadIssuer
from governance.workloads import discovery
from governance.workloads.discovery import KeySource
from tests.client import Api
from tests.factories.tenants import World, put_on_tier
from tests.integration.test_failsafe_matrix import database_down, wait_for_service
from tests.reviews import open_shop
from tests.standin import LOOPBACK, Asked, Reply, StandIn, stand_in
from valdrix.kernel.addresses import read_host_list
from valdrix.kernel.db import platform_transaction, reading
from valdrix.kernel.http import throttling as by_address
from valdrix.kernel.outbound import Client
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile

GITHUB = "https://token.actions.githubusercontent.com"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
BODY = {
    "project_id": "shop", "environment": "dev", "resource_reference": "x",
    "estimated_monthly_delta_usd": "1.00",
}  # fmt: skip


def jwk(key: Any, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    algorithm = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    made = next(one for kind, one in algorithm.items() if isinstance(key, kind))
    public = json.loads(made.to_jwk(key.public_key()))
    return {name: value for name, value in public.items() if name != "key_ops"} | (
        {} if kid is None else {"kid": kid}
    ) | members  # fmt: skip


def claims(tenant: World, **members: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": GITHUB,
        "aud": f"valdrix:{tenant.id}",
        "sub": "repo:acme/shop:ref:refs/heads/main",
        "iat": now,
        "nbf": now,
        "exp": now + 300,
        "repository_id": "4711",
        "ref": "refs/heads/main",
    } | members
    return {name: value for name, value in made.items() if value is not None}


def token(
    payload: dict[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", **header: Any
) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": "k1"} | header)


def raw(header: bytes, payload: bytes, signature: bytes = b"") -> str:
    parts = (header, payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def register(api: Api, tenant: World, **terms: Any) -> dict[str, Any]:
    body = {
        "name": "ci",
        "issuer": GITHUB,
        "project_id": "shop",
        "conditions": {"repository_id": "4711", "ref": ["refs/heads/main", "refs/heads/next"]},
        "jwks": {"keys": [jwk(RSA_KEY), jwk(EC_KEY, "k2"), jwk(ED_KEY, "k3")]},
    } | terms
    response = api.post("workload-issuers", body, key=tenant.owner.key)
    assert response.status_code == 201, response.content
    return response.json()


def ask(text: str, **members: Any) -> Any:
    return Api().post("gate/terraform", BODY | members, key=text)


def refused(response: Any, code: str = "authentication_failed") -> None:
    assert (response.status_code, response.json()["code"]) == (401, code)


def test_a_token_speaks_for_its_project_as_a_member(api: Api, tenant: World) -> None:
    made = register(api, tenant)
    assert made["audience"] == f"valdrix:{tenant.id}"
    good = token(claims(tenant))
    assert ask(good).status_code == 200
    with reading(tenant.id):
        one = Decision.objects.get(tenant_id=tenant.id)
        row = WorkloadIssuer.objects.get(pk=made["id"])
    assert (one.actor, one.person_id) == (f"workload:{made['id']}", tenant.owner.user_id)
    assert row.last_used_at is not None
    put_on_tier(tenant, GROWTH)
    speaker = find_workload_principal(good, now=datetime.now(UTC))
    assert speaker is not None
    assert speaker.plan == GROWTH
    other = ask(good, project_id="billing")
    assert (other.status_code, other.json()["code"]) == (403, "project_not_allowed")
    for method, path in (("GET", "ledger"), ("GET", "workload-issuers"), ("GET", "api-keys")):
        answer = api.send(method, path, key=good)
        assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (RSA_KEY, "RS256", "k1"), (RSA_KEY, "PS512", "k1"), (EC_KEY, "ES256", "k2"),
        (ED_KEY, "EdDSA", "k3"),
    ],
)  # fmt: skip
def test_every_asymmetric_algorithm_is_taken(
    api: Api, tenant: World, key: Any, algorithm: str, kid: str
) -> None:
    register(api, tenant)
    assert ask(token(claims(tenant), key, algorithm, kid=kid)).status_code == 200


def test_forged_tokens_speak_for_nobody(api: Api, tenant: World, other_tenant: World) -> None:
    register(api, tenant)
    good = claims(tenant)
    body = json.dumps(good).encode()
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    hs_header = b'{"alg":"HS256","kid":"k1","typ":"JWT"}'
    signed = raw(hs_header, body)[:-1].encode()
    hs = raw(hs_header, body, hmac.new(public, signed, hashlib.sha256).digest())
    valid = token(good)
    twice = body[:-1] + b', "repository_id": "1"}'
    attacks = {
        "none": raw(b'{"alg":"none"}', body),
        "None": raw(b'{"alg":"NoNe","kid":"k1"}', body),
        "hs with the public key": hs,
        "stripped": valid.rsplit(".", 1)[0] + ".",
        "another key": token(good, OTHER_RSA_KEY),
        "another key id": token(good, kid="k2"),
        "unknown key id": token(good, kid="k9"),
        "key id of a path": token(good, kid="../../../dev/null"),
        "embedded key": token(good, OTHER_RSA_KEY, jwk=jwk(OTHER_RSA_KEY)),
        "key by address": token(good, OTHER_RSA_KEY, jku="https://evil.test/jwks", kid="k9"),
        "critical header": token(good, crit=["exp"]),
        "no algorithm": raw(b"{}", body, b"x"),
        "duplicate claims": raw(
            b'{"alg":"RS256","kid":"k1"}', twice, b"s" * 256
        ),
        "changed body": valid.split(".")[0] + "." + raw(b"", body + b" ").split(".")[1] + "." + valid.split(".")[2],
        "not json": raw(b"{", body),
        "list": raw(b"[]", b"[]"),
        "too long": token(good | {"pad": "x" * 20_000}),
        "empty": "..",
        "another tenant": token(claims(other_tenant)),
        "no tenant's audience": token(good | {"aud": "https://github.com/acme"}),
        "two audiences": token(good | {"aud": [good["aud"], "x"]}),
        "upper case": token(good | {"aud": good["aud"].upper()}),
        "no audience": token({k: v for k, v in good.items() if k != "aud"}),
        "another issuer": token(good | {"iss": "https://gitlab.com"}),
        "issuer with a slash": token(good | {"iss": GITHUB + "/"}),
        "another repository": token(good | {"repository_id": "4712"}),
        "repository as a list": token(good | {"repository_id": ["4711"]}),
        "no repository": token({k: v for k, v in good.items() if k != "repository_id"}),
        "another branch": token(good | {"ref": "refs/heads/evil"}),
        "not yet": token(good | {"nbf": good["nbf"] + 60}),
        "issued later": token(good | {"iat": good["iat"] + 60, "exp": good["exp"] + 60}),
        "no end": token({k: v for k, v in good.items() if k != "exp"}),
        "no beginning": token({k: v for k, v in good.items() if k != "iat"}),
        "a life too long": token(good | {"exp": good["exp"] + 2 * 86400}),
        "an end before its beginning": token(good | {"iat": good["iat"] - 100, "exp": good["iat"] - 200}),
    }  # fmt: skip
    for name, text in attacks.items():
        response = ask(text)
        assert response.status_code == 401, name
        assert response.json()["code"] == "authentication_failed", name
    with reading(tenant.id):
        assert not Decision.objects.filter(tenant_id=tenant.id).exists()
    assert ask(valid).status_code == 200


def test_a_verified_token_whose_time_is_over_says_so_and_ten_seconds_are_forgiven(
    api: Api, tenant: World
) -> None:
    register(api, tenant)
    now = int(time.time())
    late = {"iat": now - 300, "nbf": now - 300}
    refused(ask(token(claims(tenant, exp=now - 15, **late))), "token_expired")
    assert ask(token(claims(tenant, exp=now - 5, **late))).status_code == 200
    assert ask(token(claims(tenant, iat=now + 5, nbf=now + 5))).status_code == 200
    # What does not verify learns nothing of its time.
    refused(ask(token(claims(tenant, exp=now - 15, **late), OTHER_RSA_KEY)))


def test_claims_of_gitlab_and_kubernetes(api: Api, tenant: World) -> None:
    register(
        api, tenant, issuer="https://gitlab.com", project_id="lab",
        conditions={"project_id": ["17"], "ref_protected": "true"},
    )  # fmt: skip
    uid = str(uuid.uuid4())
    register(
        api, tenant, issuer="https://kubernetes.default.svc.cluster.local", project_id="cluster",
        conditions={"/kubernetes.io/serviceaccount/uid": uid},
    )  # fmt: skip
    lab = claims(
        tenant, iss="https://gitlab.com", project_id="17", ref_protected="true", repository_id=None
    )
    assert ask(token(lab), project_id="lab").status_code == 200
    refused(ask(token(lab | {"ref_protected": "false"}), project_id="lab"))
    pod = claims(
        tenant,
        iss="https://kubernetes.default.svc.cluster.local",
        aud=[f"valdrix:{tenant.id}"],
    ) | {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "bot", "uid": uid}}}
    assert ask(token(pod), project_id="cluster").status_code == 200
    for serviceaccount in ({"name": "bot", "uid": "other"}, {"name": "bot"}, uid):
        pod["kubernetes.io"] = {"serviceaccount": serviceaccount}
        refused(ask(token(pod), project_id="cluster"))


def test_one_issuer_for_several_projects_goes_by_claims(api: Api, tenant: World) -> None:
    register(api, tenant)
    register(api, tenant, name="2", project_id="billing", conditions={"repository_id": "5000"})
    assert ask(token(claims(tenant))).status_code == 200
    other = token(claims(tenant, repository_id="5000"))
    assert ask(other, project_id="billing").status_code == 200
    assert ask(other).status_code == 403


@pytest.mark.parametrize("ending", ["revoked", "its keys replaced", "its person deactivated"])
def test_a_registration_stops_at_once(api: Api, tenant: World, ending: str) -> None:
    made = register(api, tenant, person_id=tenant.member.user_id)
    good = token(claims(tenant))
    assert ask(good).status_code == 200
    path = f"workload-issuers/{made['id']}"
    if ending == "revoked":
        for _ in range(2):
            assert api.post(f"{path}/revoke", key=tenant.owner.key).json()["status"] == "revoked"
        again = api.put(f"{path}/keys", {"jwks": {"keys": [jwk(RSA_KEY)]}}, key=tenant.owner.key)
        assert (again.status_code, again.json()["code"]) == (409, "workload_issuer_not_active")
    elif ending == "its keys replaced":
        keys = {"jwks": {"keys": [jwk(OTHER_RSA_KEY)]}}
        assert api.put(f"{path}/keys", keys, key=tenant.owner.key).status_code == 200
        assert ask(token(claims(tenant), OTHER_RSA_KEY)).status_code == 200
    else:
        with platform_transaction():
            User.objects.filter(pk=tenant.member.user_id).update(is_active=False)
    refused(ask(good))
    with reading(tenant.id):
        entries = AuditEntry.objects.filter(tenant_id=tenant.id, object_type="workload-issuer")
        assert entries.count() == (1 if ending == "its person deactivated" else 2)


BAD_TERMS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"issuer": None}, "/issuer"),
    ({"issuer": "http://plain.test", "jwks": None}, "/issuer"),
    ({"issuer": "https://unlisted.test", "jwks": None}, "/issuer"),
    ({"issuer": "https://169.254.169.254", "jwks": None}, "/issuer"),
    ({"project_id": None}, "/project_id"),
    ({"conditions": None}, "/conditions"),
    ({"conditions": {}}, "/conditions"),
    ({"conditions": []}, "/conditions"),
    ({"conditions": {"repository": "acme/shop"}}, "/conditions"),
    ({"conditions": {"sub": "repo:acme/shop:ref:refs/heads/main"}}, "/conditions"),
    ({"conditions": {"repository_id": 4711}}, "/conditions"),
    ({"conditions": {"repository_id": []}}, "/conditions"),
    ({"conditions": {"repository_id": ""}}, "/conditions"),
    ({"conditions": {"repository_id": "1", "a b": "c"}}, "/conditions"),
    ({"jwks": {}}, "/jwks"),
    ({"jwks": {"keys": []}}, "/jwks"),
    ({"jwks": {"keys": [1]}}, "/jwks"),
    ({"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}}, "/jwks"),
    ({"jwks": {"keys": [jwk(EC_KEY) | {"d": "eA"}]}}, "/jwks"),
    ({"jwks": {"keys": [jwk(rsa.generate_private_key(65537, 1024))]}}, "/jwks"),
    ({"jwks": {"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}}, "/jwks"),
    ({"jwks": {"keys": [{"kty": "RSA", "n": "A" * 5000, "e": "AQAB"}]}}, "/jwks"),
    ({"jwks": {"keys": [{"kty": [], "n": 1.5, "alg": {}}]}}, "/jwks"),
    ({"jwks": {"keys": [jwk(RSA_KEY, alg="HS256")]}}, "/jwks"),
    ({"jwks": {"keys": [jwk(RSA_KEY, use="enc")]}}, "/jwks"),
    ({"jwks": {"keys": [{"kty": "EC", "crv": "secp256k1", "x": "eA", "y": "eA"}]}}, "/jwks"),
    ({"person_id": 2**62}, "/person_id"),
    ({"audience": "mine"}, "/audience"),
]


def test_bad_terms_are_refused(api: Api, tenant: World) -> None:
    good = {
        "name": "ci", "issuer": GITHUB, "project_id": "shop",
        "conditions": {"repository_id": "1"}, "jwks": {"keys": [jwk(RSA_KEY)]},
    }  # fmt: skip
    for terms, pointer in BAD_TERMS:
        response = api.post("workload-issuers", good | terms, key=tenant.owner.key)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request"), terms
        assert pointer in {error["pointer"] for error in response.json()["errors"]}, terms
    with reading(tenant.id):
        assert not WorkloadIssuer.objects.filter(tenant_id=tenant.id).exists()


def test_only_owners_manage_them_and_only_their_own(
    api: Api, tenant: World, other_tenant: World
) -> None:
    made = register(api, tenant)
    for key in (tenant.member.key, tenant.admin.key):
        assert api.get("workload-issuers", key=key).status_code == 403
        assert api.post("workload-issuers", {}, key=key).status_code == 403
    path = f"workload-issuers/{made['id']}"
    assert api.get(path, key=other_tenant.owner.key).status_code == 404
    assert api.post(f"{path}/revoke", key=other_tenant.owner.key).status_code == 404
    assert api.get("workload-issuers", key=other_tenant.owner.key).json()["results"] == []
    assert [one["id"] for one in api.get("workload-issuers", key=tenant.owner.key).json()["results"]] == [made["id"]]  # fmt: skip


def test_what_one_registration_cannot_judge_is_judged_by_another(api: Api, tenant: World) -> None:
    """Two keys of one registration fit; those of another say which one was meant."""
    several = {"keys": [jwk(OTHER_RSA_KEY, None), jwk(RSA_KEY, None)]}
    register(api, tenant, jwks=several, name="several")
    good = token(claims(tenant))
    refused(ask(jwt.encode(claims(tenant), RSA_KEY, algorithm="RS256")))
    refused(ask(good))  # It names a key, and none of them has a name.
    twice = {"keys": [jwk(OTHER_RSA_KEY), jwk(RSA_KEY)]}
    register(api, tenant, jwks=twice, name="twice")
    refused(ask(good))
    register(api, tenant, jwks={"keys": [jwk(RSA_KEY)]}, name="one")
    assert ask(good).status_code == 200
    assert ask(jwt.encode(claims(tenant), RSA_KEY, algorithm="RS256")).status_code == 200


@pytest.mark.parametrize(
    "times",
    [
        {"exp": 10**399}, {"exp": 10**399, "iat": 1.5}, {"iat": -(10**399)}, {"nbf": 10**399},
        {"nbf": 10**399, "iat": 1.5}, {"iat": -(10**399), "exp": 2.5}, {"exp": 1e308, "iat": -1e308},
        {"exp": "2099"}, {"exp": True}, {"iat": []}, {"nbf": {}}, {"exp": 10**18},
    ],
)  # fmt: skip
def test_times_that_are_none_speak_for_nobody(
    api: Api, tenant: World, times: dict[str, Any]
) -> None:
    register(api, tenant)
    payload = json.dumps(claims(tenant, **times)).encode()
    refused(ask(jws(payload)))


@pytest.mark.parametrize(
    "value",
    [["4711"], {"4711": 1}, True, 4711.0, "4711 ", " 4711", "04711", "4711\u0000", "", 0, "٤٧١١"],
)
def test_a_claim_of_another_shape_meets_no_condition(
    api: Api, tenant: World, value: object
) -> None:
    register(api, tenant)
    refused(ask(jws(json.dumps(claims(tenant, repository_id=value)).encode())))
    assert ask(jws(json.dumps(claims(tenant, repository_id=4711)).encode())).status_code == 200


def jws(payload: bytes) -> str:
    """Sign bytes as they are: an issuer may say what a library would not."""
    return jwt.api_jws.encode(payload, RSA_KEY, algorithm="RS256", headers={"kid": "k1"})


def test_a_token_that_was_good_still_speaks_while_the_database_is_down(
    api: Api, tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_shop(tenant)
    register(api, tenant)
    good, unseen = token(claims(tenant)), token(claims(tenant, jti="another"))
    assert ask(good).status_code == 200
    with database_down():
        answer = ask(good)
        assert (answer.status_code, answer.json()["persisted"]) == (200, False)
        assert ask(unseen).status_code == 503
        over = datetime.now(UTC) + timedelta(seconds=320)
        monkeypatch.setattr(authentication.timezone, "now", lambda: over)
        refused(ask(good), "token_expired")
        monkeypatch.undo()
    wait_for_service()


# --- discovery ------------------------------------------------------------------------------------


class Issuer:
    """An issuer on this machine, whose keys can be changed."""

    def __init__(self) -> None:
        self.keys = [jwk(RSA_KEY)]
        self.server: StandIn | None = None
        self.is_down = False
        self.named = ""
        self.pause_seconds = 0.0

    def answer(self, asked: Asked) -> Reply:
        assert self.server is not None
        if self.is_down:
            return Reply(503)
        if asked.path == "/.well-known/openid-configuration":
            document: Any = {
                "issuer": self.named or self.server.url,
                "jwks_uri": f"{self.server.url}/keys",
            }
        else:
            document = {"keys": self.keys}
        return Reply(body=json.dumps(document).encode(), pause_seconds=self.pause_seconds)


@pytest.fixture
def issuer(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    made = Issuer()
    with stand_in(tmp_path, made.answer) as server:
        made.server = server
        settings.WORKLOAD_ISSUER_HOSTS = read_host_list([server.host])
        client = Client(allowed_networks=LOOPBACK, ca_file=server.ca_file, pause=lambda _: None)
        monkeypatch.setattr(workload_tokens, "key_source", KeySource(client.send))
        yield made


def asked(issuer: Issuer) -> int:
    assert issuer.server is not None
    return len(issuer.server.asked)


def test_keys_are_discovered_once_and_rotate(
    api: Api, tenant: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert issuer.server is not None
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    for _ in range(3):
        assert ask(token(claims(tenant, iss=url))).status_code == 200
    assert asked(issuer) == 2  # The description and the keys.

    issuer.keys = [jwk(OTHER_RSA_KEY, "new")]
    fresh = token(claims(tenant, iss=url), OTHER_RSA_KEY, kid="new")
    refused(ask(fresh))  # Within the minute nothing is fetched again.
    assert asked(issuer) == 2
    later(monkeypatch, discovery.REFRESH_SECONDS + 1)
    assert ask(fresh).status_code == 200
    assert asked(issuer) == 4
    refused(ask(token(claims(tenant, iss=url))))  # The old key is gone.


@pytest.mark.parametrize("is_known", [False, True])
def test_who_comes_while_keys_are_fetched_waits_for_them(
    api: Api, tenant: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    assert issuer.server is not None
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    if is_known:
        assert ask(token(claims(tenant, iss=url))).status_code == 200
        issuer.keys = [jwk(OTHER_RSA_KEY, "new")]
        later(monkeypatch, discovery.REFRESH_SECONDS + 1)
    key, kid = (OTHER_RSA_KEY, "new") if is_known else (RSA_KEY, "k1")
    before, issuer.pause_seconds = asked(issuer), 0.4
    with ThreadPoolExecutor(4) as pool:
        good = token(claims(tenant, iss=url), key, kid=kid)
        answers = list(pool.map(ask_apart, [good] * 4))
    assert answers == [200] * 4
    assert asked(issuer) - before == 2


def ask_apart(text: str) -> int:
    try:
        return int(ask(text).status_code)
    finally:
        connection.close()


def test_whoever_may_not_wait_for_keys_is_not_told_that_a_token_is_bad(
    api: Api, tenant: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for another issuer leave no place; what is being fetched may judge the token."""
    assert issuer.server is not None
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    assert ask(token(claims(tenant, iss=url))).status_code == 200
    source = workload_tokens.key_source
    monkeypatch.setattr(source, "_waiting", threading.BoundedSemaphore(1))
    assert source._waiting.acquire(blocking=False)
    source._known[url].arrived.clear()
    fresh = token(claims(tenant, iss=url), OTHER_RSA_KEY, kid="new")
    answer = ask(fresh)
    assert (answer.status_code, answer.json()["code"]) == (503, "workload_issuer_unavailable")
    assert ask(token(claims(tenant, iss=url))).status_code == 200
    source._known[url].arrived.set()
    refused(ask(fresh))


SHARE = discovery.MOST_OF_ONE_TENANT


class Silence:
    """Issuers of one host that say nothing until they are let go."""

    def __init__(self) -> None:
        self.lasts = threading.Event()
        self.let_go = threading.Event()
        self.asked: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked.path)
        if len(self.asked) == SHARE:
            self.lasts.set()
        self.let_go.wait()
        return Reply(404)


@pytest.fixture
def silence(
    tmp_path: Path, issuer: Issuer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Silence]]:
    """Run a host that is silent for as long as a test wants, beside the issuer that answers."""
    made = Silence()
    monkeypatch.setattr(discovery, "_TIMEOUT_SECONDS", 60.0)
    with stand_in(tmp_path, made.answer) as server:
        assert issuer.server is not None
        settings.WORKLOAD_ISSUER_HOSTS = read_host_list([server.host, issuer.server.host])
        try:
            yield server.url, made
        finally:
            made.let_go.set()


def test_silent_issuers_of_one_tenant_hold_no_other_tenant_s_tokens(
    api: Api, tenant: World, other_tenant: World, issuer: Issuer, silence: tuple[str, Silence]
) -> None:
    """The pool stands for a process: what is held in it is held of its threads."""
    assert issuer.server is not None
    (silent_url, silent), good_url = silence, issuer.server.url
    names = [f"{silent_url}/{number}" for number in range(2 * SHARE)]
    for name in names:
        register(api, tenant, issuer=name, jwks=None)
    register(api, tenant, issuer=good_url, jwks=None)
    register(api, other_tenant, issuer=good_url, jwks=None)
    own = token(claims(tenant, iss=good_url))
    flood = [token(claims(tenant, iss=name)) for name in names]
    theirs = token(claims(other_tenant, iss=good_url))
    with ThreadPoolExecutor(2 * SHARE) as pool:
        held = [pool.submit(ask_apart, text) for text in flood[:SHARE]]
        assert silent.lasts.wait(60)
        refused_at_once = [pool.submit(ask_apart, text) for text in [*flood[SHARE:], own]]
        assert [one.result(60) for one in refused_at_once] == [503] * (SHARE + 1)
        assert pool.submit(ask_apart, theirs).result(60) == 200
        # What the other tenant fetched is known to the first one too.
        assert pool.submit(ask_apart, own).result(60) == 200
        assert [one.done() for one in held] == [False] * SHARE
        silent.let_go.set()
        assert [one.result(60) for one in held] == [503] * SHARE
    assert sorted(silent.asked) == sorted(
        f"/{number}/.well-known/openid-configuration" for number in range(SHARE)
    )


def test_who_has_no_share_left_is_judged_by_what_is_known(
    api: Api, tenant: World, issuer: Issuer, silence: tuple[str, Silence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert issuer.server is not None
    silent, url = silence[1], issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    good = token(claims(tenant, iss=url))
    assert ask(good).status_code == 200
    names = [f"{silence[0]}/{number}" for number in range(SHARE)]
    for name in names:
        register(api, tenant, issuer=name, jwks=None)
    issuer.keys.append(jwk(OTHER_RSA_KEY, "new"))
    fresh = token(claims(tenant, iss=url), OTHER_RSA_KEY, kid="new")
    later(monkeypatch, discovery.FRESH_SECONDS + 1)
    with ThreadPoolExecutor(SHARE) as pool:
        flood = [pool.submit(ask_apart, token(claims(tenant, iss=name))) for name in names]
        assert silent.lasts.wait(60)
        assert ask(good).status_code == 200
        # A key that may be new is neither good nor bad; nor was the turn to look for it used up.
        assert ask(fresh).status_code == 503
        assert asked(issuer) == 2
        silent.let_go.set()
        assert [one.result(60) for one in flood] == [503] * SHARE
    assert ask(fresh).status_code == 200


def test_an_issuer_that_does_not_answer_stops_no_other_registration(
    api: Api, tenant: World, issuer: Issuer
) -> None:
    assert issuer.server is not None
    url = issuer.server.url
    issuer.is_down = True
    register(api, tenant, issuer=url, jwks=None, name="discovered")
    assert ask(token(claims(tenant, iss=url))).status_code == 503
    register(api, tenant, issuer=url, name="uploaded")
    assert ask(token(claims(tenant, iss=url))).status_code == 200
    # What only the silent one could judge is neither good nor bad.
    assert ask(token(claims(tenant, iss=url), kid="k9")).status_code == 503


@pytest.mark.parametrize(
    "reply",
    [Reply(7), Reply(body=b"[]"), Reply(body=b"{"), Reply(body=b"\xff"), Reply(302),
     Reply(body=b'{"issuer": "x", "issuer": "y"}'), Reply(headers={"x-long": "a" * 70_000})],
)  # fmt: skip
def test_an_issuer_that_answers_nonsense_does_not_answer(
    api: Api, tenant: World, issuer: Issuer, reply: Reply
) -> None:
    assert issuer.server is not None
    issuer.server.answer = lambda asked: reply
    register(api, tenant, issuer=issuer.server.url, jwks=None)
    answer = ask(token(claims(tenant, iss=issuer.server.url)))
    assert (answer.status_code, answer.json()["code"]) == (503, "workload_issuer_unavailable")


def test_made_up_key_ids_fetch_nothing(api: Api, tenant: World, issuer: Issuer) -> None:
    assert issuer.server is not None
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    for number in range(10):
        refused(ask(token(claims(tenant, iss=url), OTHER_RSA_KEY, kid=f"made-up-{number}")))
    assert asked(issuer) == 2


def test_an_issuer_that_is_down_is_judged_by_what_is_known(
    api: Api, tenant: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert issuer.server is not None
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    issuer.is_down = True
    response = ask(token(claims(tenant, iss=url)))
    assert (response.status_code, response.json()["code"]) == (503, "workload_issuer_unavailable")
    issuer.is_down = False
    later(monkeypatch, discovery.REFRESH_SECONDS + 1)
    assert ask(token(claims(tenant, iss=url))).status_code == 200
    issuer.is_down = True
    later(monkeypatch, discovery.FRESH_SECONDS + 100)
    assert ask(token(claims(tenant, iss=url))).status_code == 200
    later(monkeypatch, discovery.KEPT_SECONDS + 1000)
    assert ask(token(claims(tenant, iss=url))).status_code == 503


def test_what_a_silent_issuer_leaves_open_counts_against_the_address(
    api: Api, tenant: World, issuer: Issuer, settings: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whoever names such an issuer needs no good token to be told 503."""
    assert issuer.server is not None
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path / "counts"))
    monkeypatch.setattr(by_address, "limiter", lambda: counts)
    settings.RATE_LIMIT_PER_MINUTE = 3
    url = issuer.server.url
    register(api, tenant, issuer=url, jwks=None)
    issuer.is_down = True
    near, far = Api(remote_addr="198.51.100.7"), Api(remote_addr="198.51.100.8")
    made_up = [
        token(claims(tenant, iss=url), OTHER_RSA_KEY, kid=f"made-up-{number}")
        for number in range(5)
    ]
    answers = [near.post("gate/terraform", BODY, key=text) for text in made_up]
    assert [answer.status_code for answer in answers] == [503] * 3 + [429] * 2
    assert (answers[3].json()["code"], int(answers[3]["Retry-After"]) > 0) == ("throttled", True)
    good = token(claims(tenant, iss=url))
    assert far.post("gate/terraform", BODY, key=good).status_code == 503
    issuer.is_down = False
    later(monkeypatch, discovery.REFRESH_SECONDS + 1)
    # Whose token can be judged again is no stranger, wherever it comes from.
    assert near.post("gate/terraform", BODY, key=good).status_code == 200
    counts.close()


def test_a_description_of_another_issuer_is_not_believed(
    api: Api, tenant: World, issuer: Issuer
) -> None:
    assert issuer.server is not None
    register(api, tenant, issuer=issuer.server.url, jwks=None)
    issuer.named = "https://elsewhere.test"
    response = ask(token(claims(tenant, iss=issuer.server.url)))
    assert response.status_code == 503
    assert asked(issuer) == 1


def test_an_issuer_that_nobody_registered_is_never_asked(tenant: World, issuer: Issuer) -> None:
    assert issuer.server is not None
    refused(ask(token(claims(tenant, iss=issuer.server.url))))
    assert asked(issuer) == 0


class _Time:
    """The clock of discovery, moved on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(discovery, "time", _Time(seconds))


def test_a_workload_reviews_nothing(api: Api, tenant: World) -> None:
    """Its person could approve; the job that speaks for them has no scope to."""
    open_shop(tenant)
    register(api, tenant)
    good = token(claims(tenant))
    asked = ask(good, estimated_monthly_delta_usd="300.00").json()
    approval_id = asked["approval_request_id"]
    assert asked["decision"] == "REQUIRE_APPROVAL"
    for verb in ("approve", "deny"):
        answer = api.post(f"approvals/{approval_id}/{verb}", {"reason": "mine"}, key=good)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), verb
    theirs = api.post("gate/terraform", BODY | {"estimated_monthly_delta_usd": "300.00"},
                      key=tenant.key).json()["approval_request_id"]  # fmt: skip
    for verb in ("approve", "deny", "withdraw"):
        answer = api.post(f"approvals/{theirs}/{verb}", {"reason": "mine"}, key=good)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), verb
    assert api.get("approvals/queue", key=good).json()["results"] == []
    with reading(tenant.id):
        assert not Review.objects.exists()
        assert {one.status for one in Approval.objects.all()} == {"pending"}
