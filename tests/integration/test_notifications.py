"""People are told what was committed, once, by e-mail and webhook; what fails is tried again."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.test import Client
from django.urls import reverse

from billing.alerts.operations import raise_budget_alerts
from enforcement.ledger.operations import append
from enforcement.notifications import operations, sending
from enforcement.notifications.links import Place, link_to, read_link
from enforcement.notifications.models import DEAD, PENDING, SENT, Delivery, Notice
from governance.integrations.operations import create_integration
from governance.models import Approval, AuditEntry, User
from tests.factories.headroom import Shop
from tests.factories.rows import build_facts
from tests.factories.tenants import Person, World, system_actor
from tests.reviews import act, approve, open_shop
from tests.standin import LOOPBACK, Asked, Reply, StandIn, stand_in
from tests.waiting import wait_until
from valdrix.jobs import turns
from valdrix.jobs.tasks import send_notifications
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.outbound import Client as OutboundClient


@pytest.fixture(autouse=True)
def _mail(settings: Any) -> None:
    """Send mail into a list."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.MAIL_IS_CONFIGURED = True
    mail.outbox = []


@pytest.fixture
def shop(tenant: World) -> Shop:
    """Give a tenant whose people have addresses, and where 100 dollars need an approval."""
    for person in (tenant.owner, tenant.admin, tenant.member):
        User.objects.filter(pk=person.user_id).update(email=person.username)
    made = open_shop(tenant)
    made.budget("1000.00")
    return made


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Give somebody's webhook, on this machine, which the test allows to be called."""
    with stand_in(tmp_path, lambda asked: Reply()) as other:
        client = OutboundClient(
            allowed_networks=LOOPBACK, ca_file=other.ca_file, pause=lambda seconds: None
        )
        monkeypatch.setattr(sending, "send", client.send)
        yield other


def run(world: World, *, later: timedelta = timedelta()) -> dict[str, int]:
    """Do what the job does, at a moment."""
    now = datetime.now(UTC) + later
    made = operations.spread_ledger(tenant_id=world.id, now=now)
    made += operations.spread_alerts(tenant_id=world.id, now=now)
    made += operations.remind(tenant_id=world.id, now=now)
    return {"notices": made, **sending.send_due(world.id, clock=lambda: now)}


def add_webhook(world: World, url: str, **settings: str) -> str:
    _, secret = create_integration(
        actor=system_actor(world.id),
        integration_id=new_id(),
        random_bytes=bytes(32),
        kind="webhook",
        name="chat",
        person_id=world.owner.user_id,
        settings={"url": url, **settings},
    )
    return secret


def deliveries(world: World) -> list[Delivery]:
    with reading(world.id):
        return list(Delivery.objects.select_related("notice").order_by("pk"))


def told(person: Person) -> list[str]:
    return [one.subject for one in mail.outbox if one.to == [person.username]]


# Who is told, and once


def test_reviewers_are_told_what_waits_and_the_requester_what_became_of_it(shop: Shop) -> None:
    world = shop.world
    asked = shop.ask("300.00", resource_reference="module.web")
    assert run(world)["notices"] == 1
    assert len(told(world.owner)) == 1
    assert told(world.member) == []
    message = mail.outbox[0]
    assert "Approval needed" in message.subject
    assert "module.web" in message.body
    assert "/admin/go/" in message.body
    approve(world.owner, asked["approval_request_id"])
    assert run(world)["notices"] == 1
    assert [subject.split(":")[0] for subject in told(world.member)] == ["[Valdrix] Approved"]
    assert len(told(world.owner)) == 1


@pytest.mark.parametrize(("verb", "word"), [("deny", "Denied"), ("withdraw", "Withdrawn")])
def test_the_requester_is_told_of_an_end(shop: Shop, verb: str, word: str) -> None:
    asked = shop.ask("300.00")
    act(shop.world.owner, asked["approval_request_id"], verb, reason="not this month")
    run(shop.world)
    assert word in told(shop.world.member)[0]


def test_nothing_is_told_twice_however_often_the_job_runs(
    shop: Shop, run_in_threads: Callable[..., list[object]]
) -> None:
    for number in range(3):
        shop.ask("300.00", resource_reference=f"r{number}")
    run_in_threads(6, lambda number: run(shop.world))
    run(shop.world)
    with reading(shop.world.id):
        assert Notice.objects.count() == 3
    assert len(told(shop.world.owner)) == 3
    assert {one.state for one in deliveries(shop.world)} == {SENT}


def test_a_turn_that_has_lasted_a_minute_begins_no_delivery(shop: Shop) -> None:
    for number in range(3):
        shop.ask("300.00", resource_reference=f"r{number}")
    now = datetime.now(UTC)
    operations.spread_ledger(tenant_id=shop.world.id, now=now)
    waiting = len(deliveries(shop.world))
    assert waiting >= 3
    ticks = itertools.count()

    def clock() -> datetime:
        return now + next(ticks) * timedelta(seconds=25)

    assert sending.send_due(shop.world.id, clock=clock) == {"sent": 1, "failed": 0}
    later = now + timedelta(hours=1)
    sent = sending.send_due(shop.world.id, clock=lambda: later)
    assert sent == {"sent": waiting - 1, "failed": 0}


@pytest.mark.first
def test_a_slow_webhook_of_one_tenant_holds_back_no_notice_of_another(
    shop: Shop, other_tenant: World, hook: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def slow(asked: Asked) -> Reply:
        assert release.wait(60)
        return Reply()

    add_webhook(shop.world, f"{hook.url}/hook")
    hook.answer = slow
    shop.ask("300.00")
    for person in (other_tenant.owner, other_tenant.admin):
        User.objects.filter(pk=person.user_id).update(email=person.username)
    other = open_shop(other_tenant)
    other.budget("1000.00")
    other.ask("300.00")
    monkeypatch.setattr(turns, "WAITED_SECONDS", 1.0)

    def sent(world: World) -> bool:
        return any(one.state == SENT for one in deliveries(world))

    try:
        wait_until(lambda: bool(send_notifications() and sent(other_tenant)), seconds=30)
        assert [one.state for one in deliveries(shop.world) if one.channel == "webhook"] == [
            PENDING
        ]
    finally:
        release.set()
        wait_until(lambda: "unfinished=0" in send_notifications(), seconds=30)
    assert {one.state for one in deliveries(shop.world)} == {SENT}


def test_what_was_rolled_back_is_not_told(shop: Shop) -> None:
    run(shop.world)
    facts = build_facts(event="approval_denied", approval_request_id=new_id())

    def append_and_fail() -> None:
        with transaction(shop.world.id):
            append(tenant_id=shop.world.id, facts=[facts])
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError):
        append_and_fail()
    assert run(shop.world)["notices"] == 0
    assert deliveries(shop.world) == []


def test_reviewers_are_reminded_once_before_it_expires(shop: Shop) -> None:
    shop.ask("300.00")
    run(shop.world)
    assert run(shop.world, later=timedelta(hours=19))["notices"] == 0
    assert run(shop.world, later=timedelta(hours=21))["notices"] == 1
    assert run(shop.world, later=timedelta(hours=22))["notices"] == 0
    assert "Still waiting" in told(shop.world.owner)[1]


def test_budget_alerts_are_told_to_who_answers_for_money(shop: Shop) -> None:
    shop.ask("99.00", project_id="shop")
    for number in range(6):
        shop.ask("99.00", resource_reference=f"r{number}")
    raise_budget_alerts(shop.world.id, at=datetime.now(UTC))
    run(shop.world)
    assert run(shop.world)["notices"] == 0
    alerts = [one for one in told(shop.world.admin) if "Budget alert" in one]
    assert len(alerts) == 1
    assert "50 %" in alerts[0]
    assert not any("Budget alert" in one for one in told(shop.world.member))


def test_another_tenant_is_told_nothing(shop: Shop, other_tenant: World) -> None:
    User.objects.filter(pk=other_tenant.owner.user_id).update(email=other_tenant.owner.username)
    shop.ask("300.00")
    run(other_tenant)
    run(shop.world)
    assert told(other_tenant.owner) == []
    assert deliveries(other_tenant) == []


def test_texts_of_callers_begin_no_header_and_no_markup(shop: Shop, hook: StandIn) -> None:
    add_webhook(shop.world, f"{hook.url}/hook", format="slack")
    evil = "<!channel> *Cost:* 1 USD <https://evil.test|Open in Valdrix> &amp;"
    shop.ask("300.00", resource_reference=evil)
    run(shop.world)
    assert "\n" not in mail.outbox[0].subject
    said = json.loads(hook.asked[0].body)
    assert (said["mrkdwn"], "<" in said["text"]) == (False, False)
    fields = said["blocks"][1]["fields"]
    assert {one["type"] for one in fields} == {"plain_text"}
    assert f"Resource: {evil}" in [one["text"] for one in fields]
    assert "mrkdwn" not in json.dumps(said["blocks"])


# Webhooks


def test_a_webhook_gets_a_signed_event(shop: Shop, hook: StandIn) -> None:
    secret = add_webhook(shop.world, f"{hook.url}/hook")
    asked = shop.ask("300.00")
    assert run(shop.world)["failed"] == 0
    (request,) = hook.asked
    parts = dict(part.split("=") for part in request.headers["valdrix-signature"].split(","))
    signed = parts["t"].encode() + b"." + request.body
    assert hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() == parts["v1"]
    event = json.loads(request.body)
    assert event["type"] == request.headers["valdrix-event"] == "approval.requested"
    assert event["id"] == request.headers["valdrix-delivery"]
    assert event["data"]["approval_id"] == asked["approval_request_id"]
    assert event["data"]["monthly_delta_usd"] == "300.0000"
    assert event["tenant"] == shop.world.slug


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1/x", "https://localhost/x", "https://169.254.169.254/latest"]
)
def test_an_address_inside_is_not_called_and_is_given_up(shop: Shop, target: str) -> None:
    add_webhook(shop.world, target)
    shop.ask("300.00")
    run(shop.world)
    (failed,) = [one for one in deliveries(shop.world) if one.channel == "webhook"]
    assert (failed.state, failed.attempts) == (DEAD, 1)
    assert "may not be called" in failed.last_error


def test_a_failure_is_tried_again_later_and_later_and_given_up(shop: Shop, hook: StandIn) -> None:
    add_webhook(shop.world, f"{hook.url}/hook")
    shop.ask("300.00")
    hook.answer = lambda request: Reply(status=503)
    passed, attempts = timedelta(), []
    for _ in range(12):
        run(shop.world, later=passed)
        one = next(row for row in deliveries(shop.world) if row.channel == "webhook")
        attempts.append(one.attempts)
        passed += timedelta(hours=2)
    assert attempts[:3] == [1, 2, 3]
    assert (one.state, one.attempts) == (DEAD, 8)
    assert one.last_error in {"answered 503", f"{hook.host} keeps failing; it is asked again later"}
    assert {row.headers["valdrix-delivery"] for row in hook.asked} >= {str(one.pk)}


def test_a_refusal_for_good_is_not_tried_again(shop: Shop, hook: StandIn) -> None:
    add_webhook(shop.world, f"{hook.url}/hook")
    shop.ask("300.00")
    hook.answer = lambda request: Reply(status=410)
    run(shop.world)
    run(shop.world, later=timedelta(hours=5))
    assert len(hook.asked) == 1


def test_a_sender_that_died_is_replaced(shop: Shop) -> None:
    shop.ask("300.00")
    now = datetime.now(UTC)
    operations.spread_ledger(tenant_id=shop.world.id, now=now)
    lost = operations.claim_delivery(tenant_id=shop.world.id, now=now)
    assert lost is not None
    before = len(mail.outbox)
    run(shop.world)
    taken = len(mail.outbox) - before
    run(shop.world, later=operations.LEASE + timedelta(seconds=1))
    assert len(mail.outbox) - before == taken + 1
    operations.note_failed(delivery=lost, error="late", is_final=True, now=now)
    assert {one.state for one in deliveries(shop.world)} == {SENT}


def test_a_mail_server_that_is_down_costs_time_only(
    shop: Shop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.ask("300.00")
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert run(shop.world)["failed"] > 0
    assert {one.state for one in deliveries(shop.world)} == {PENDING}
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    run(shop.world, later=timedelta(minutes=10))
    assert {one.state for one in deliveries(shop.world)} == {SENT}


def test_what_was_given_up_is_seen_and_tried_again(shop: Shop) -> None:
    add_webhook(shop.world, "https://127.0.0.1/x")
    shop.ask("300.00")
    run(shop.world)
    (dead,) = [one for one in deliveries(shop.world) if one.state == DEAD]
    client = Client()
    client.force_login(User.objects.get(pk=shop.world.admin.user_id))
    assert "1 notification could not be delivered" in client.get("/admin/").content.decode()
    page = reverse("admin:enforcement_delivery_change", args=[str(dead.pk)])
    assert "Try it again" in client.get(page).content.decode()
    retry = reverse("admin:enforcement_delivery_retry", args=[str(dead.pk)])
    assert client.get(retry).status_code == 200
    assert client.post(retry).status_code == 302
    (row,) = [one for one in deliveries(shop.world) if one.pk == dead.pk]
    assert (row.state, row.attempts) == (PENDING, 0)
    assert client.post(retry).status_code == 409
    with reading(shop.world.id):
        assert AuditEntry.objects.filter(action="delivery.retry").count() == 1


# Links


def test_a_link_leads_its_people_only_and_only_when_it_is_ours(
    shop: Shop, other_tenant: World, settings: Any
) -> None:
    settings.PUBLIC_URL = ""
    approval_id = shop.ask("300.00")["approval_request_id"]
    link = link_to(Place(shop.world.id, "approval", approval_id))
    page = reverse("admin:governance_approval_change", args=[approval_id])

    def follow(person: Person | None, url: str) -> Any:
        client = Client()
        if person is not None:
            client.force_login(User.objects.get(pk=person.user_id))
        return client.get(url)

    assert follow(None, link)["Location"].startswith(reverse("admin:login"))
    assert follow(shop.world.owner, link)["Location"] == page
    assert follow(other_tenant.owner, link).status_code == 404
    assert follow(shop.world.owner, link[:-4] + "AAA/").status_code == 404
    assert follow(shop.world.owner, "/admin/go/x/").status_code == 404
    with reading(shop.world.id):
        assert Approval.objects.get(pk=approval_id).status == "pending"


def test_links_end() -> None:
    place = Place(new_id(), "approval", new_id())
    token = link_to(place).rstrip("/").rsplit("/", 1)[1]
    assert read_link(token) == place
    with time_machine.travel(datetime.now(UTC) + timedelta(days=31)):
        assert read_link(token) is None
