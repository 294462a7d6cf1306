"""The same requests to two tenants alike, with a key assumed in one and looked up in the other.

Between the requests keys and people change at random. Whatever a caller sees, every row and what was
counted has to be the same, but for names, moments and durations. More of it is run with other
``VALDRIX_DIFFERENTIAL_SEEDS`` and ``VALDRIX_DIFFERENTIAL_STEPS``.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.db import connection
from django.http import HttpResponse

from enforcement.gate.lastknown import last_known
from governance.api import authentication
from governance.api.authentication import ApiKeyAuthentication
from governance.api.throttling import GateThrottle, Throttle
from governance.identity.domain import ADMIN, MEMBER, OWNER, RANDOM_BYTES
from governance.identity.operations import rotate_api_key
from governance.models import ApiKey, Membership, User
from tests.assumed import LONG_SECONDS, assume_for_long
from tests.client import Api
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import Person, World, create_world, put_on_tier, system_actor
from tests.integration.test_failsafe_matrix import database_down
from tests.preflight import build_preflight
from valdrix.kernel.db import platform_transaction, reading, transaction
from valdrix.kernel.metrics import AUTH_ATTEMPTS

STEPS: Final = int(os.environ.get("VALDRIX_DIFFERENTIAL_STEPS", "120"))
SEEDS: Final = [int(text) for text in os.environ.get("VALDRIX_DIFFERENTIAL_SEEDS", "2").split()]
PEOPLE: Final = ("member", "admin", "owner")
GATE: Final = "gate/terraform"
FAR: Final = timedelta(days=1)
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*(?:Z|\+00:00)")
_LATENCY: Final = re.compile(r'"(?:computed_)?latency_ms": ?\d+')
_NOT_TOLD: Final = {"Content-Length", "X-Request-ID"}
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass
class Side:
    """One of the two tenants, and the keys by which its people ask now."""

    world: World
    shop: Shop
    is_assumed: bool
    api: Api = field(default_factory=Api)
    texts: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, Any] = field(default_factory=dict)

    def person(self, name: str) -> Person:
        found: Person = getattr(self.world, name)
        return found

    def alike(self, text: str) -> str:
        """Return a text with this side's names, moments and durations told as any side's."""
        text = _MOMENT.sub("<moment>", _LATENCY.sub("<latency>", text))
        text = _UUID.sub(lambda match: self._name(match[0]), text)
        return _HASH.sub(lambda match: self._name(match[0]), text)

    def _name(self, found: str) -> str:
        return self.names.setdefault(found, f"<{len(self.names)}>")

    def rows(self) -> list[Any]:
        """Return what a gate writes, as far as it is the same for both."""
        with reading(self.world.id), connection.cursor() as cursor:
            cursor.execute(_ROWS)
            return [self.alike(row[0]) for row in cursor.fetchall()]


_ROWS: Final = """
SELECT * FROM (
    SELECT 'decision ' || id || ' ' || actor || ' ' || response_json
      FROM enforcement_decision ORDER BY id) d
UNION ALL SELECT * FROM (
    SELECT concat_ws(' ', 'entry', sequence, event, principal, decision_id, decision, amount_usd)
      FROM enforcement_ledger_entry ORDER BY sequence) e
UNION ALL SELECT * FROM (
    SELECT concat_ws(' ', 'key', source, stored_key, decision_id)
      FROM enforcement_idempotency_key ORDER BY source, decision_id) k
UNION ALL SELECT * FROM (
    SELECT concat_ws(' ', 'account', kind, pending_usd, shadow_pending_usd, remaining_usd)
      FROM billing_account ORDER BY id) a
"""


def update_key(side: Side, name: str, **values: Any) -> None:
    with transaction(side.world.id):
        ApiKey.objects.filter(pk=side.key_ids[name]).update(**values)


def rotate(side: Side, name: str) -> None:
    heal(side, name)
    made, text = rotate_api_key(
        actor=system_actor(side.world.id),
        key_id=side.key_ids[name],
        random_bytes=os.urandom(RANDOM_BYTES),
    )
    side.key_ids[name] = made.pk
    side.texts[name] = [*side.texts[name][-1:], text]
    update_key(side, name, last_used_at=datetime.now(UTC) + FAR)


def leave(side: Side, name: str) -> None:
    with transaction(side.world.id):
        Membership.objects.filter(user_id=side.person(name).user_id).delete()


def come(side: Side, name: str, role: str) -> None:
    with transaction(side.world.id):
        Membership.objects.update_or_create(
            tenant_id=side.world.id,
            user_id=side.person(name).user_id,
            defaults={"role": role, "created_at": datetime.now(UTC)},
        )


def activate(side: Side, name: str, *, is_active: bool) -> None:
    with platform_transaction():
        User.objects.filter(pk=side.person(name).user_id).update(is_active=is_active)


def heal(side: Side, name: str) -> None:
    update_key(
        side, name, revoked_at=None, expires_at=None, projects=None, role=name, scopes=["approve"]
    )
    come(side, name, name)
    activate(side, name, is_active=True)


Change = Callable[[Side, str], object]


def a_change(dice: random.Random) -> Change:
    """Return what happens to a key, its person or its tenant, the same on both sides."""
    role = dice.choice((MEMBER, ADMIN, OWNER))
    tier = dice.choice(("free", "starter", "growth", "pro", "enterprise"))
    projects = dice.choice((None, ["shop"], ["site"], ["shop", "site"], ["site", "shop"], []))
    soon = dice.choice((-FAR, FAR))
    changes: list[Change] = [
        lambda side, name: update_key(side, name, revoked_at=datetime.now(UTC)),
        lambda side, name: update_key(side, name, expires_at=datetime.now(UTC) + soon),
        lambda side, name: update_key(side, name, projects=projects),
        lambda side, name: update_key(side, name, projects=projects),
        lambda side, name: update_key(side, name, projects=None),
        lambda side, name: update_key(side, name, role=role),
        lambda side, name: update_key(side, name, scopes=[]),
        lambda side, name: update_key(side, name, last_used_at=datetime.now(UTC) - FAR),
        lambda side, name: update_key(side, name, last_used_at=None),
        lambda side, name: activate(side, name, is_active=False),
        lambda side, name: come(side, name, role),
        lambda side, _: put_on_tier(side.world, tier),
        lambda side, _: last_known.forget(side.world.id),
        publish,
        leave,
        rotate,
        *[heal] * 8,
    ]
    return dice.choice(changes)


def publish(side: Side, _: str) -> None:
    heal(side, "admin")
    side.shop.world = replace(
        side.world, admin=replace(side.world.admin, key=side.texts["admin"][-1])
    )
    side.shop.publish()


@dataclass(frozen=True)
class Request:
    """What is sent to both sides."""

    method: str
    path: str
    body: Any
    content_type: str
    headers: dict[str, str]
    as_whom: str
    with_text: int
    in_header: str
    is_throttled: bool
    is_down: bool


def gate_body(dice: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "project_id": dice.choice(("shop", "shop", "site")),
        "environment": dice.choice(("dev", "prod")),
        "resource_reference": f"module.{dice.randrange(3)}",
        "estimated_monthly_delta_usd": dice.choice(("1.00", "10.00", "400.00", "2000000.00")),
    }
    odd = dice.randrange(12)
    if odd == 0:
        body["dry_run"] = True
    elif odd == 1:
        body["estimated_monthly_delta_usd"] = "much"
    elif odd == 2:
        body["expected_request_fingerprint"] = "0" * 64
    elif odd in (3, 4, 5):
        body["idempotency_key"] = f"k{dice.randrange(3)}"
    return body


def an_event(dice: random.Random) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "io.valdrix.change.proposed.v1",
        "source": "/ci",
        "id": str(dice.randrange(4)),
        "data": gate_body(dice),
    }


def several(dice: random.Random, make: Callable[[random.Random], Any]) -> list[Any]:
    return [dice.choice((make(dice), make(dice), make(dice), {})) for _ in range(dice.randrange(5))]


def a_request(dice: random.Random) -> Request:
    """Return any request to any gate, good or bad."""
    events = "application/cloudevents"
    path, body, content_type = dice.choice(
        (
            (GATE, gate_body(dice), "application/json"),
            (GATE, gate_body(dice), "application/json"),
            (GATE, b"{", "application/json"),
            (GATE, b"[" + b"1," * 40_000 + b"1]", "application/json"),
            (GATE, b"a=b", "text/plain"),
            ("gate/terraform/preflight", build_preflight(), "application/json"),
            ("gate/terraform/preflight", {}, "application/json"),
            ("gate/batch", {"items": several(dice, gate_body)}, "application/json"),
            ("gate/batch", {"items": several(dice, gate_body)}, "application/json"),
            ("gate/cloud-event", an_event(dice), f"{events}+json"),
            ("gate/cloud-event", several(dice, an_event), f"{events}-batch+json"),
            ("gate/cloud-event", gate_body(dice), "application/json"),
            ("gate/k8s/admission", gate_body(dice), "application/json"),
            ("gate/k8s/admission/review", {}, "application/json"),
        )
    )
    headers = {}
    if path == "gate/cloud-event" and content_type == "application/json":
        headers = {f"ce-{name}": text for name, text in an_event(dice).items() if name != "data"}
    if dice.randrange(4) == 0:
        headers["Idempotency-Key"] = f"h{dice.randrange(4)}"
    method = dice.choice(("POST",) * 12 + ("PUT", "OPTIONS", "HEAD", "GET"))
    return Request(
        method,
        path,
        body,
        content_type,
        headers,
        as_whom=dice.choice(("member", "member", "admin", "owner")),
        with_text=dice.choice((-1, -1, -1, 0)),
        in_header=dice.choice(("Authorization",) * 5 + ("X-API-Key",) * 3 + ("both",)),
        is_throttled=dice.randrange(30) == 0,
        is_down=dice.randrange(30) == 0,
    )


def attempts() -> tuple[float, float]:
    ok, failed = AUTH_ATTEMPTS.labels("ok"), AUTH_ATTEMPTS.labels("failed")
    return ok._value.get(), failed._value.get()


def look_up(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is asked next work by assumption, or have each key looked up in full."""
    seconds = LONG_SECONDS if side.is_assumed else -1.0
    monkeypatch.setattr(authentication, "_HEARD_SECONDS", seconds)


def put(side: Side, request: Request, number: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Send a request to one side, and return all that can be seen of what came of it."""
    look_up(side, monkeypatch)
    text = side.texts[request.as_whom][request.with_text]
    headers = dict(request.headers)
    if request.in_header != "X-API-Key":
        headers["Authorization"] = f"Bearer {text}"
    if request.in_header != "Authorization":
        headers["X-API-Key"] = text
    taken: list[str] = []

    def take(self: Throttle, django_request: Any, principal: Any) -> bool:
        taken.append(str(principal.tenant_id))
        self._wait_seconds = 1
        return not request.is_throttled

    before = attempts()
    with monkeypatch.context() as patched, ExitStack() as stack:
        patched.setattr(GateThrottle, "take", take)
        if request.is_down:
            stack.enter_context(database_down())
        # No address tries too often.
        side.api.http.defaults["REMOTE_ADDR"] = f"10.0.{number // 250}.{number % 250 + 1}"
        answer = side.api.send(
            request.method,
            request.path,
            request.body,
            content_type=request.content_type,
            headers=headers,
        )
    counted = tuple(now - then for now, then in zip(attempts(), before, strict=True))
    return seen(side, answer), len(taken), counted


def seen(side: Side, answer: HttpResponse) -> tuple[Any, ...]:
    headers = {name: text for name, text in answer.items() if name not in _NOT_TOLD}
    body = answer.content.decode()
    told = side.alike(f"{headers} {body}")
    return answer.status_code, told


def differing(one: Any, other: Any) -> Any:
    first, second = one[0][1].split(","), other[0][1].split(",")
    return [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]


def make_side(*, is_assumed: bool) -> Side:
    world = create_world()
    shop = Shop(world)
    shop.budget("1000.00")
    side = Side(world, shop, is_assumed=is_assumed)
    for name in PEOPLE:
        side.texts[name] = [side.person(name).key]
        side.key_ids[name] = side.person(name).key_id
        heal(side, name)
        update_key(side, name, last_used_at=datetime.now(UTC) + FAR)
    return side


@pytest.mark.parametrize("seed", SEEDS)
def test_an_assumed_key_is_answered_as_one_that_was_looked_up(
    database: None, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    assume_for_long(monkeypatch)
    dice = random.Random(seed)
    sides = [make_side(is_assumed=True), make_side(is_assumed=False)]
    assumed: list[str] = []
    build = ApiKeyAuthentication._build_assumption

    def build_and_count(self: Any, key: Any, principal: Any, told: str) -> Any:
        assumed.append(principal.tenant_id)
        return build(self, key, principal, told)

    monkeypatch.setattr(ApiKeyAuthentication, "_build_assumption", build_and_count)
    statuses: Counter[int] = Counter()
    for number in range(STEPS):
        if dice.randrange(3) == 0:
            change, name = a_change(dice), dice.choice(PEOPLE)
            for side in sides:
                look_up(side, monkeypatch)
                change(side, name)
        request = a_request(dice)
        one, other = (put(side, request, number, monkeypatch) for side in sides)
        assert one == other, (number, request, differing(one, other))
        statuses[one[0][0]] += 1
        if number % 10 == 0:
            assert sides[0].rows() == sides[1].rows(), (number, request)

    assert set(assumed) == {sides[0].world.id}
    assert len(assumed) > STEPS / 10
    assert statuses[200] > STEPS / 8
    assert statuses[401] > STEPS / 20
    assert sides[0].rows() == sides[1].rows()
    for side in sides:
        assert find_differences(side.world.id) == []
        check_chain(side.world.id)
