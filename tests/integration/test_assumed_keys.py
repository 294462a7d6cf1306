"""A key that was good a moment ago is taken to be so still, and never answered for on that alone.

Each test asks twice in one process within a minute and changes something between: the second answer
is what full authentication would have led to, and nothing is written for whom the key was.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from django.db import connection, connections
from django.http import HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from enforcement.gate import evaluate
from enforcement.gate.lastknown import last_known
from governance.api import assuming, authentication
from governance.api.authentication import CONFIRMS
from governance.api.remembered import RememberedPrincipals, remembered
from governance.api.throttling import Throttle
from governance.identity.domain import (
    MEMBER,
    RANDOM_BYTES,
    Principal,
    build_key_text,
    read_key_text,
)
from governance.identity.operations import change_role, remove_member, rotate_api_key
from governance.models import ApiKey, User
from tests.assumed import LONG_SECONDS, assume_for_long, note_uses_ahead
from tests.client import BASE, Api
from tests.conftest import owner_dsn
from tests.crash.proxy import BEFORE, Cut, proxied
from tests.factories.headroom import Shop
from tests.factories.sums import check_chain, find_differences
from tests.factories.tenants import Person, World, issue_key, put_on_tier, system_actor
from tests.integration.test_failsafe_matrix import database_down
from tests.preflight import build_preflight
from tests.waiting import wait_until
from valdrix.kernel.db import platform_transaction, reading, transaction
from valdrix.kernel.metrics import AUTH_ATTEMPTS
from valdrix.routes import list_routes

GATE: Final = "gate/terraform"
IN_FULL: Final = "governance_authenticate_key"
ON_THE_WAY: Final = '{"keys":[["'
BODY: Final = {
    "project_id": "shop",
    "environment": "dev",
    "resource_reference": "module.web",
    "estimated_monthly_delta_usd": "10.00",
}
METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options")
WAIT_SECONDS: Final = 20.0


@pytest.fixture(autouse=True)
def _whatever_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assume_for_long(monkeypatch)


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a shop whose member asked this process a moment ago."""
    made = Shop(tenant)
    made.budget("1000.00")
    note_uses_ahead(tenant)
    made.ask("1.00", key="seen")
    return made


def ask(person: Person, body: Any = BODY, *, path: str = GATE, **options: Any) -> HttpResponse:
    return Api().post(path, body, key=person.key, **options)


def outcome(response: HttpResponse) -> tuple[int, str | None]:
    return response.status_code, response.json().get("code")


def written(world: World) -> tuple[int, ...]:
    """Return how many rows of each kind a gate writes there are."""
    tables = ("decision", "idempotency_key", "ledger_entry")
    with reading(world.id), connection.cursor() as cursor:
        counts = ", ".join(f"(SELECT count(*) FROM enforcement_{table})" for table in tables)
        cursor.execute(f"SELECT {counts}, (SELECT count(*) FROM billing_charge)")
        row: tuple[int, ...] = cursor.fetchone()
    return row


def statements(captured: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in captured.captured_queries]


def revoke(world: World) -> None:
    with transaction(world.id):
        mine = ApiKey.objects.filter(pk=world.member.key_id)
        assert mine.update(revoked_at=datetime.now(UTC)) == 1


def expire(world: World) -> None:
    with transaction(world.id):
        mine = ApiKey.objects.filter(pk=world.member.key_id)
        assert mine.update(expires_at=datetime.now(UTC) - timedelta(microseconds=1)) == 1


def rotate(world: World) -> None:
    rotate_api_key(
        actor=system_actor(world.id),
        key_id=world.member.key_id,
        random_bytes=os.urandom(RANDOM_BYTES),
    )


def remove(world: World) -> None:
    remove_member(actor=system_actor(world.id), person_id=world.member.user_id)


def deactivate(world: World) -> None:
    with platform_transaction():
        assert User.objects.filter(pk=world.member.user_id).update(is_active=False) == 1


ENDS: Final = {
    "revoked": revoke,
    "expired": expire,
    "rotated": rotate,
    "member removed": remove,
    "person deactivated": deactivate,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_key_that_ended_is_refused_and_nothing_is_written(shop: Shop, end: str) -> None:
    ENDS[end](shop.world)
    before = written(shop.world)

    with CaptureQueriesContext(connection) as captured:
        answers = [outcome(ask(shop.world.member)) for _ in range(2)]

    assert answers == [(401, "authentication_failed")] * 2
    assert written(shop.world) == before
    # The first was found out on the way of the gate; the second found nothing to assume.
    sent = statements(captured)
    assert [ON_THE_WAY in text for text in sent if "enforcement_gate_begin" in text] == [True]
    assert [IN_FULL in text for text in sent[-2:]] == [True, True]


def restrict(world: World, **terms: Any) -> None:
    with transaction(world.id):
        assert ApiKey.objects.filter(pk=world.admin.key_id).update(**terms) == 1


CHANGES: Final[dict[str, tuple[Callable[[World], object], tuple[int, str | None]]]] = {
    "projects narrowed": (
        lambda world: restrict(world, projects=["site"]),
        (403, "project_not_allowed"),
    ),
    "projects narrowed around it": (lambda world: restrict(world, projects=["shop"]), (200, None)),
    "scopes narrowed": (lambda world: restrict(world, scopes=[]), (200, None)),
    "key demoted": (lambda world: restrict(world, role=MEMBER), (200, None)),
    "person demoted": (
        lambda world: change_role(
            actor=system_actor(world.id), person_id=world.admin.user_id, role=MEMBER
        ),
        (200, None),
    ),
    "another plan": (lambda world: put_on_tier(world, "pro"), (200, None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_that_changed_is_answered_as_what_it_is_now(shop: Shop, change: str) -> None:
    world = shop.world
    assert outcome(ask(world.admin)) == (200, None)
    before = written(world)
    make, expected = CHANGES[change]
    make(world)

    with CaptureQueriesContext(connection) as captured:
        assert outcome(ask(world.admin)) == expected

    sent = statements(captured)
    assert sum(ON_THE_WAY in text for text in sent) == 1
    assert sum(IN_FULL in text for text in sent) == 1
    if expected[0] == 200:
        assert written(world) != before
        with CaptureQueriesContext(connection) as captured:
            assert outcome(ask(world.admin)) == expected
        assert [ON_THE_WAY in text for text in statements(captured)][1:2] == [True]
        assert not any(IN_FULL in text for text in statements(captured))
    else:
        assert written(world) == before
        # Refused for whom it is assumed to be now: the database is asked about that, too.
        with CaptureQueriesContext(connection) as captured:
            assert outcome(ask(world.admin)) == expected
        assert [IN_FULL in text for text in statements(captured)] == [True]
    assert find_differences(world.id) == []
    check_chain(world.id)


def test_what_a_key_may_do_now_is_not_refused_for_what_it_could_not(shop: Shop) -> None:
    world = shop.world
    restrict(world, projects=["site"])
    assert outcome(ask(world.admin)) == (403, "project_not_allowed")
    restrict(world, projects=["shop", "site"])

    assert outcome(ask(world.admin)) == (200, None)


def batch_of(*items: Any) -> dict[str, Any]:
    return {"items": list(items)}


EVENT: Final = {
    "specversion": "1.0",
    "type": "io.valdrix.change.proposed.v1",
    "source": "/ci",
    "id": "1",
    "data": BODY,
}
OTHER_WAYS: Final[dict[str, tuple[str, Any, dict[str, Any]]]] = {
    "dry run": (GATE, {**BODY, "dry_run": True}, {}),
    "replay": (
        GATE,
        {**BODY, "estimated_monthly_delta_usd": "1.00"},
        {"headers": {"Idempotency-Key": "seen"}},
    ),
    "another request under its key": (GATE, BODY, {"headers": {"Idempotency-Key": "seen"}}),
    "no JSON": (GATE, b"{", {}),
    "another type": (GATE, b"a=b", {"content_type": "text/plain"}),
    "a bad field": (GATE, {**BODY, "estimated_monthly_delta_usd": "much"}, {}),
    "another fingerprint": (GATE, {**BODY, "expected_request_fingerprint": "0" * 64}, {}),
    "preflight": ("gate/terraform/preflight", build_preflight(), {}),
    "a bad preflight": ("gate/terraform/preflight", {}, {}),
    "batch": ("gate/batch", batch_of(BODY, BODY), {}),
    "batch of one": ("gate/batch", batch_of(BODY), {}),
    "batch of bad items": ("gate/batch", batch_of({}, {"project_id": 1}), {}),
    "batch with a dry run": ("gate/batch", batch_of({}, {**BODY, "dry_run": True}), {}),
    "empty batch": ("gate/batch", batch_of(), {}),
    "event": ("gate/cloud-event", EVENT, {"content_type": "application/cloudevents+json"}),
    "a bad event": ("gate/cloud-event", {}, {"content_type": "application/cloudevents+json"}),
    "batch of events": (
        "gate/cloud-event",
        [{}, EVENT],
        {"content_type": "application/cloudevents-batch+json"},
    ),
    "admission": ("gate/k8s/admission", {}, {}),
}


def test_whatever_is_asked_is_refused_once_the_key_ended(shop: Shop) -> None:
    world = shop.world
    for name, (path, body, options) in OTHER_WAYS.items():
        with transaction(world.id):
            mine = ApiKey.objects.filter(pk=world.member.key_id)
            mine.update(revoked_at=None)
        assert ask(world.member, {**BODY, "dry_run": True}).status_code == 200, name
        assert remembered.find_told(digest_of(world.member)) is not None, name
        revoke(world)
        before = written(world)

        refused = ask(world.member, body, path=path, **options)

        assert outcome(refused) == (401, "authentication_failed"), name
        assert refused["WWW-Authenticate"], name
        assert written(world) == before, name


def test_a_good_key_is_told_what_full_authentication_tells_it(shop: Shop) -> None:
    for name, (path, body, options) in OTHER_WAYS.items():
        remembered.forget(digest_of(shop.world.member))
        ok = attempts("ok")
        in_full = ask(shop.world.member, body, path=path, **options)
        by_assumption = ask(shop.world.member, body, path=path, **options)

        assert attempts("ok") == ok + 2, name
        assert outcome(by_assumption) == outcome(in_full), name
        if in_full.status_code != 200:
            members = ("status", "code", "title", "detail", "errors")
            first, second = in_full.json(), by_assumption.json()
            assert [first.get(m) for m in members] == [second.get(m) for m in members], name


def attempts(kind: str) -> float:
    return float(AUTH_ATTEMPTS.labels(kind)._value.get())


def digest_of(person: Person) -> bytes:
    key = read_key_text(person.key)
    assert key is not None
    return key.digest


def test_each_attempt_is_counted_once_as_what_it_was(shop: Shop) -> None:
    ok, failed = attempts("ok"), attempts("failed")
    assert ask(shop.world.member).status_code == 200
    assert ask(shop.world.member, {**BODY, "dry_run": True}).status_code == 200
    assert (attempts("ok"), attempts("failed")) == (ok + 2, failed)
    revoke(shop.world)
    assert ask(shop.world.member).status_code == 401
    assert (attempts("ok"), attempts("failed")) == (ok + 2, failed + 1)


def test_another_key_with_the_same_public_part_is_not_taken_for_it(shop: Shop) -> None:
    good = read_key_text(shop.world.key)
    assert good is not None
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    lookup = bytes(letters.index(letter) for letter in good.lookup)
    forged = build_key_text(lookup + os.urandom(RANDOM_BYTES - len(lookup)))
    assert forged.lookup == good.lookup
    before = written(shop.world)

    with CaptureQueriesContext(connection) as captured:
        assert outcome(Api().post(GATE, BODY, key=forged.text)) == (401, "authentication_failed")

    assert [IN_FULL in text for text in statements(captured)] == [True]
    assert written(shop.world) == before
    assert ask(shop.world.member).status_code == 200


def noted_use(world: World) -> datetime:
    with reading(world.id):
        noted = ApiKey.objects.get(pk=world.member.key_id).last_used_at
    assert noted is not None
    return noted


def test_the_use_of_a_key_is_noted_to_the_minute_all_the_same(shop: Shop) -> None:
    world, first = shop.world, noted_use(shop.world)
    now = datetime.now(UTC)
    assert ask(world.member).status_code == 200
    assert noted_use(world) == first
    with transaction(world.id):
        due = now - timedelta(seconds=61)
        ApiKey.objects.filter(pk=world.member.key_id).update(last_used_at=due)

    assert ask(world.member).status_code == 200

    assert now <= noted_use(world) <= datetime.now(UTC)


def test_the_database_is_asked_in_full_after_a_silence_of_the_connection(shop: Shop) -> None:
    """So that a dead one is found out under the limit of that check, not under the gate's."""
    sent = []
    for seconds in (LONG_SECONDS / 2, LONG_SECONDS, 0.0):
        authentication._heard.at -= seconds
        with CaptureQueriesContext(connection) as captured:
            assert ask(shop.world.member).status_code == 200
        sent.append([IN_FULL in text for text in statements(captured)].count(True))
    assert sent == [0, 1, 0]


def test_what_was_told_is_good_for_a_minute_however_often_it_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # Here a minute is one.
    kept, principal = RememberedPrincipals(), an_unbound_principal()
    began = time.monotonic()
    kept.keep(b"digest", principal, told="[]")
    kept.keep(b"of a workload", principal)
    monkeypatch.setattr(time, "monotonic", lambda: began + 50)
    known = kept.find_told(b"digest")
    assert known is not None
    assert (known.principal, known.told) == (principal, "[]")
    assert kept.find_told(b"of a workload") is None
    kept.renew(b"digest", "[]")
    kept.renew(b"of a workload", "[1]")
    kept.renew(b"unknown", "[]")
    assert kept.find(b"unknown") is None

    monkeypatch.setattr(time, "monotonic", lambda: began + 61)
    assert kept.find_told(b"digest") is None
    assert kept.find(b"digest") == principal
    assert kept.find(b"of a workload") is None
    kept.forget(b"digest")
    kept.renew(b"digest", "[]")
    assert kept.find(b"digest") is None


def an_unbound_principal() -> Principal:
    """Return who may do as little as a principal may."""
    return Principal(tenant_id=uuid.UUID(int=1), principal_id="key:x", person_id=0, role=MEMBER)


def test_while_the_database_is_down_a_key_that_was_good_still_speaks(shop: Shop) -> None:
    with database_down():
        answer = ask(shop.world.member)
    assert answer.status_code == 200
    assert (answer.json()["decision"], answer.json()["persisted"]) == ("DENY", False)
    revoke(shop.world)
    before = written(shop.world)
    assert outcome(ask(shop.world.member)) == (401, "authentication_failed")
    with database_down():
        assert outcome(ask(shop.world.member)) == (503, "database_unavailable")
    assert written(shop.world) == before


def test_a_connection_that_breaks_on_the_way_gives_a_revoked_key_no_answer(shop: Shop) -> None:
    with proxied(connection) as proxy:
        shop.ask("1.00", key="seen")
        revoke(shop.world)
        before = written(shop.world)
        assert remembered.find(digest_of(shop.world.member)) is not None
        cut = proxy.arm(Cut(b"enforcement_gate_begin", BEFORE))

        answer = ask(shop.world.member)

        assert cut.happened.is_set()
        assert outcome(answer) == (401, "authentication_failed")
        assert written(shop.world) == before


def test_what_the_database_refuted_is_not_believed_when_it_goes_down_right_after(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoke(shop.world)
    before = written(shop.world)
    in_full = assuming._authenticate

    def while_down(*args: Any) -> None:
        with database_down():
            in_full(*args)

    monkeypatch.setattr(assuming, "_authenticate", while_down)

    assert outcome(ask(shop.world.member)) == (503, "database_unavailable")
    assert written(shop.world) == before


def test_what_was_told_anew_meanwhile_is_not_refuted_with_what_was_told_before() -> None:
    kept, principal = RememberedPrincipals(), an_unbound_principal()
    kept.keep(b"digest", principal, told="[1]")
    kept.refute(b"digest", "[0]")
    kept.refute(b"unknown", "[0]")
    assert kept.find(b"digest") == principal
    kept.refute(b"digest", "[1]")
    assert kept.find(b"digest") is None


def test_a_database_that_is_slower_than_what_a_gate_has_left_is_not_down(
    shop: Shop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keys speak for is then asked again, for as long as that takes in any other request."""
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 50
    monkeypatch.setattr(authentication, "JUDGED_WITHIN_SECONDS", WAIT_SECONDS)
    revoke(shop.world)
    before = written(shop.world)
    with psycopg.connect(owner_dsn()) as holder, ThreadPoolExecutor(max_workers=1) as pool:
        holder.execute("LOCK TABLE governance_api_key IN ACCESS EXCLUSIVE MODE")
        connection.close()
        done = threading.Event()

        def release() -> None:
            with psycopg.connect(owner_dsn(), autocommit=True) as other:
                wait_until(lambda: done.is_set() or waiting_for(other, holder) > 1)
            holder.rollback()

        released = pool.submit(release)
        refused = ask(shop.world.member, {**BODY, "dry_run": True})
        done.set()
        released.result()

    assert outcome(refused) == (401, "authentication_failed")
    assert written(shop.world) == before


def waiting_for(other: psycopg.Connection, holder: psycopg.Connection) -> int:
    """Return how many sessions wait for the locks that one holds, those cut off included."""
    row = other.execute(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'governance_api_key'::regclass"
        " AND pid <> %s",
        [holder.info.backend_pid],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_process_that_has_seen_the_key_and_not_the_policy_writes_nothing_either(
    shop: Shop,
) -> None:
    revoke(shop.world)
    last_known.forget(shop.world.id)
    before = written(shop.world)
    with CaptureQueriesContext(connection) as captured:
        assert outcome(ask(shop.world.member)) == (401, "authentication_failed")
    # Nothing was begun for it: it was asked for twice whose key it is, and that was all.
    assert [IN_FULL in text for text in statements(captured)] == [True, True]
    assert written(shop.world) == before


def test_a_database_that_does_not_speak_of_keys_confirms_none(
    shop: Shop, owner_cursor: Any
) -> None:
    """As one whose functions are of an earlier version: what it leaves out was not checked."""
    owner_cursor.execute("SELECT pg_get_functiondef('enforcement_gate_begin'::regproc)")
    real = owner_cursor.fetchone()[0]
    earlier = real.replace("IF p ? 'keys' THEN", "IF false THEN", 1)
    assert earlier != real
    owner_cursor.execute(earlier)
    try:
        unread = ask(shop.world.member).json()
        revoke(shop.world)
        before = written(shop.world)
        refused = ask(shop.world.member)
    finally:
        owner_cursor.execute(real)

    assert unread["reason_codes"] == ["gate_evaluation_error"]
    assert outcome(refused) == (401, "authentication_failed")
    assert written(shop.world) == before


class Caller:
    """One person who asks from a thread of their own, which has asked before."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self._pool = ThreadPoolExecutor(max_workers=1)
        assert self.ask("seen").result(WAIT_SECONDS).status_code == 200

    def ask(self, key: str) -> Any:
        """Begin to ask, and return what will be the answer."""
        headers = {"Idempotency-Key": f"{self.person.key_id} {key}"}
        return self._pool.submit(ask, self.person, headers=headers)

    def close(self) -> None:
        """Close the thread and its connection."""
        self._pool.submit(connections.close_all).result(WAIT_SECONDS)
        self._pool.shutdown()


def people(world: World, count: int) -> list[Person]:
    """Return as many keys of a tenant, each with what it takes to ask."""
    made = []
    for number in range(count):
        key_id, text = issue_key(
            world.id, name=f"k{number}", role=MEMBER, person_id=world.member.user_id
        )
        made.append(
            Person(
                user_id=world.member.user_id,
                username=world.member.username,
                role=MEMBER,
                key_id=key_id,
                key=text,
                tenant_id=world.id,
                scopes=frozenset(),
            )
        )
    return made


def test_of_those_who_wait_together_only_the_one_whose_key_ended_is_refused(
    shop: Shop, settings: Any
) -> None:
    settings.GATE_TIME_BUDGET_MS = settings.GATE_LOCK_TIMEOUT_MS = 15_000
    world = shop.world
    five = people(world, 5)
    note_uses_ahead(world)
    callers = [Caller(person) for person in five]
    leader, ended = callers[0], callers[2]
    before = written(world)
    try:
        with psycopg.connect(owner_dsn()) as holder:
            lock = "SELECT 1 FROM billing_account WHERE tenant_id = %s FOR UPDATE"
            holder.execute(lock, [world.id])
            calls = [leader.ask("now")]
            wait_until(lambda: is_somebody_waiting(holder))
            calls += [caller.ask("now") for caller in callers[1:]]
            wait_until(lambda: len(evaluate._LINES._lines[world.id]) == 4)
            # The leader's was confirmed when it was sent; the others' are still to be.
            for caller in (leader, ended):
                with transaction(world.id):
                    mine = ApiKey.objects.filter(pk=caller.person.key_id)
                    assert mine.update(revoked_at=datetime.now(UTC)) == 1
            holder.rollback()
        answers = [call.result(WAIT_SECONDS) for call in calls]
        assert [answer.status_code for answer in answers] == [200, 200, 401, 200, 200]
        ids = [answer.json()["decision_id"] for answer in answers if answer.status_code == 200]
        assert transactions_of(world, ids) == 2, "the leader's, and one for those who waited"
        # A decision with its key, its charge and two entries each; of the refused one nothing.
        grown = [now - then for now, then in zip(written(world), before, strict=True)]
        assert (grown[0], grown[1], grown[2]) == (4, 4, 8)
        assert outcome(leader.ask("then").result(WAIT_SECONDS)) == (401, "authentication_failed")
    finally:
        for caller in callers:
            caller.close()
    assert find_differences(world.id) == []
    check_chain(world.id)


def is_somebody_waiting(holder: psycopg.Connection) -> bool:
    """Tell whether a session waits for the locks that another one holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND %s = ANY (pg_blocking_pids(pid))",
            [holder.info.backend_pid],
        )
        return bool(cursor.fetchone()[0])


def transactions_of(world: World, decision_ids: list[str]) -> int:
    with reading(world.id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT xmin::text) FROM enforcement_decision WHERE id = ANY(%s::uuid[])",
            [decision_ids],
        )
        return int(cursor.fetchone()[0])


def test_a_key_that_changed_pays_once(shop: Shop) -> None:
    taken: list[str] = []

    def take(self: Throttle, request: Any, principal: Principal) -> bool:
        taken.append(principal.principal_id)
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Throttle, "take", take)
        assert ask(shop.world.admin).status_code == 200
        restrict(shop.world, scopes=[])
        taken.clear()
        assert ask(shop.world.admin).status_code == 200
        assert taken == [shop.world.admin.principal.principal_id]


def test_only_methods_that_let_every_principal_in_work_by_assumption() -> None:
    """What refuses before the method begins would not wait for the database's word."""
    request = RequestFactory().post("/")
    found = []
    for route in list_routes():
        view = route.view_class
        methods = [name for name in METHODS if hasattr(getattr(view, name, None), CONFIRMS)]
        if view is None or not methods:
            continue
        if "post" not in methods:
            continue  # What reads is judged before it is assumed: test_assumed_reads.
        assert methods == ["post"]
        found.append(route.pattern.removeprefix(BASE))
        for permission in view.permission_classes:
            permission().check(an_unbound_principal(), request)
        assert all(issubclass(throttle, Throttle) for throttle in view.throttle_classes)
    assert sorted(found) == [
        "gate/batch",
        "gate/cloud-event",
        "gate/k8s/admission",
        "gate/terraform",
        "gate/terraform/preflight",
    ]
