"""Signing in to the console: guesses are bounded and tell nothing, sessions end, codes open once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from governance.identity.domain import MEMBER
from governance.identity.operations import admit_member
from governance.models import AuditEntry, RecoveryCode, SecondFactor, SignInSlot, User
from governance.signin.domain import ACCOUNT, LIMITS, account_name, one_time_code, step_of
from governance.signin.operations import find_slot, sweep_slots, unseal_secret
from tests.factories.tenants import Person, World, system_actor
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import AUTH_ATTEMPTS
from valdrix.kernel.sealing import SealingError

PASSWORD = "correct-horse-battery"
FREE = LIMITS[ACCOUNT].free
MANY = 60


@pytest.fixture(autouse=True)
def _cheap_passwords(settings: Any) -> None:
    """Judge a password within a millisecond: many are judged here, and none is a secret."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def address() -> str:
    """Give an address of this test's own, so that no other test's guesses count."""
    return f"2001:db8:{new_id().int % 65536:x}:{new_id().int % 65536:x}::1"


def give_password(person: Person) -> User:
    user = User.objects.get(pk=person.user_id)
    user.set_password(PASSWORD)
    user.save(update_fields=["password"])
    return user


def sign_in(
    client: Client, username: str, password: str = PASSWORD, *, address: str, **more: str
) -> HttpResponse:
    return client.post(
        reverse("admin:login"),
        {"username": username, "password": password, **more},
        REMOTE_ADDR=address,
    )


def is_signed_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


def text_of(response: HttpResponse) -> str:
    return response.content.decode()


# Guesses


def test_guesses_at_one_account_are_bounded_and_free_again_later(
    tenant: World, address: str
) -> None:
    user = give_password(tenant.owner)
    client = Client()
    for _ in range(FREE):
        assert "is not right" in text_of(sign_in(client, user.username, "no", address=address))
    locked = sign_in(client, user.username, address=address)
    assert locked.status_code == 429
    assert 0 < int(locked["Retry-After"]) <= 61
    assert "Too many attempts failed" in text_of(locked)
    assert not is_signed_in(client)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        assert sign_in(client, user.username, address=address).status_code == 302
        assert is_signed_in(client)


def test_a_lock_is_not_made_longer_by_who_waits_badly(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    for _ in range(FREE):
        sign_in(Client(), user.username, "no", address=address)
    waits = [
        int(sign_in(Client(), user.username, "no", address=address)["Retry-After"])
        for _ in range(5)
    ]
    assert max(waits) <= 61


def test_a_right_password_forgives_the_wrong_ones(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    for _ in range(3):
        for _ in range(FREE - 1):
            sign_in(Client(), user.username, "no", address=address)
        assert sign_in(Client(), user.username, address=address).status_code == 302


def test_an_unknown_name_is_answered_exactly_like_a_known_one(tenant: World, address: str) -> None:
    known = give_password(tenant.owner).username
    unknown = f"nobody-{new_id().hex}@x.test"
    without_password = User.objects.get(pk=tenant.member.user_id).username
    seen = []
    for name in (known, unknown, without_password):
        answers = []
        for _ in range(FREE + 1):
            response = sign_in(Client(), name, "no", address=address)
            text = re.sub(r'csrfmiddlewaretoken" value="\w+"', "", text_of(response))
            text = re.sub(r"\d+ seconds|a minute", "soon", text)
            answers.append((response.status_code, text.replace(name, "NAME")))
        seen.append(answers)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][-1][0] == 429


def test_strangers_who_guess_lock_nobody_out_of_their_own_browser(
    tenant: World, address: str
) -> None:
    user, other = give_password(tenant.owner), give_password(tenant.admin)
    own, stranger = Client(), Client()
    sign_in(own, user.username, address=address)
    own.post(reverse("admin:logout"))
    elsewhere = address.replace("::1", "ffff::1")
    for _ in range(FREE + 1):
        sign_in(stranger, user.username, "guess", address=elsewhere)
    assert sign_in(Client(), user.username, address=elsewhere).status_code == 429
    assert sign_in(own, user.username, address=address).status_code == 302
    # Who signed in to their own account with a browser is a stranger to others', and what a
    # browser remembers buys a few guesses of its own, no more.
    sign_in(stranger, other.username, address=elsewhere)
    assert sign_in(stranger, user.username, address=elsewhere).status_code == 429
    known = own.cookies["valdrix_known"]
    assert known["httponly"]
    stranger.cookies["valdrix_known"] = f"{user.username} x:{known.value.partition(':')[2]}"
    assert sign_in(stranger, user.username, address=elsewhere).status_code == 429
    stranger.cookies["valdrix_known"] = known.value
    statuses = [
        sign_in(stranger, user.username, "guess", address=elsewhere).status_code
        for _ in range(FREE + 1)
    ]
    assert statuses == [200] * FREE + [429]


def test_one_address_cannot_try_many_names(tenant: World, address: str) -> None:
    statuses = [
        sign_in(Client(), f"{number}-{new_id().hex}", "no", address=address).status_code
        for number in range(MANY)
    ]
    assert statuses.count(200) == 50
    assert statuses[50:] == [429] * (MANY - 50)
    user = give_password(tenant.owner)
    assert sign_in(Client(), user.username, address=address).status_code == 429
    assert sign_in(Client(), user.username, address="192.0.2.77").status_code == 302


def test_simultaneous_guesses_are_bounded_too(
    tenant: World, address: str, run_in_threads: Callable[..., list[object]]
) -> None:
    """Each guess is counted before its password is looked at."""
    user = give_password(tenant.owner)

    def one(number: int) -> int:
        return sign_in(Client(), user.username, f"no {number}", address=address).status_code

    statuses = run_in_threads(16, one)
    assert statuses.count(200) == FREE
    assert statuses.count(429) == 16 - FREE
    slot = find_slot(ACCOUNT, name=account_name(user.username))
    assert SignInSlot.objects.get(key=slot.key).failures == FREE


def test_slots_are_swept_when_they_count_nothing(tenant: World, address: str) -> None:
    sign_in(Client(), f"x-{new_id().hex}", "no", address=address)
    before = SignInSlot.objects.count()
    assert before > 0
    sweep_slots(now=datetime.now(UTC))
    assert SignInSlot.objects.count() == before
    with pytest.raises(SystemExit) as ended:
        call_command("run_jobs", "--once", "--job", "clear-sign-ins")
    assert ended.value.code == 0
    assert sweep_slots(now=datetime.now(UTC) + timedelta(days=2)) >= before


def test_passwords_of_any_size_are_answered(tenant: World, address: str) -> None:
    for password in ("x" * 5000, "\x00", "\U0001f600" * 100):
        response = sign_in(Client(), "somebody", password, address=address)
        assert response.status_code == 200
        assert "is not right" in text_of(response)
    assert sign_in(Client(), "n\x00", "no", address=address).status_code == 200


def test_sign_ins_are_counted(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)

    def count(outcome: str) -> float:
        return AUTH_ATTEMPTS.labels(outcome)._value.get()

    before = {name: count(name) for name in ("console_ok", "console_failed", "console_locked")}
    for _ in range(FREE + 1):
        sign_in(Client(), user.username, "no", address=address)
    sign_in(Client(), give_password(tenant.admin).username, address=address)
    assert count("console_failed") - before["console_failed"] == FREE
    assert count("console_locked") - before["console_locked"] == 1
    assert count("console_ok") - before["console_ok"] == 1


# Sessions


def test_an_idle_session_ends(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client()
    sign_in(client, user.username, address=address)
    start = datetime.now(UTC)
    for minutes in (50, 100, 150):
        with time_machine.travel(start + timedelta(minutes=minutes)):
            assert is_signed_in(client)
    with time_machine.travel(start + timedelta(minutes=211)):
        response = client.get(reverse("admin:index"), follow=True)
        assert "Your session has ended" in text_of(response)
        assert not is_signed_in(client)


def test_no_session_lasts_longer_than_twelve_hours(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client()
    sign_in(client, user.username, address=address)
    start = datetime.now(UTC)
    for half_hours in range(1, 24):
        with time_machine.travel(start + timedelta(minutes=30 * half_hours)):
            assert is_signed_in(client)
    with time_machine.travel(start + timedelta(hours=12, minutes=1)):
        assert not is_signed_in(client)


def test_the_session_s_key_changes_when_somebody_signs_in(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client()
    client.get(reverse("admin:login"))
    session = client.session
    session["planted"] = True
    session.save()
    planted = session.session_key
    sign_in(client, user.username, address=address)
    assert client.session.session_key != planted
    assert Client(headers={"cookie": f"sessionid={planted}"}).get("/admin/").status_code == 302


def test_cookies_and_headers_are_strict(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client()
    client.get(reverse("admin:login"))
    response = sign_in(client, user.username, address=address)
    for name in ("valdrix_session", "valdrix_csrf"):
        cookie = response.cookies[next(one for one in response.cookies if one.endswith(name))]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        assert not cookie["domain"]
        assert bool(cookie["secure"]) == cookie.key.startswith("__Host-")
    page = client.get(reverse("admin:index"))
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
    assert "'unsafe-inline'" not in page["Content-Security-Policy"].split("style-src")[0]
    assert "no-store" in page["Cache-Control"]
    assert "Content-Security-Policy" not in client.get("/health/live")


def test_signing_out_everywhere_else_leaves_this_session(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    here, there = Client(), Client()
    for client in (here, there):
        sign_in(client, user.username, address=address)
    response = here.post(reverse("admin:account"), {"action": "end-sessions"})
    assert response.status_code == 302
    assert is_signed_in(here)
    assert not is_signed_in(there)


def test_a_new_password_ends_other_sessions(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    here, there = Client(), Client()
    for client in (here, there):
        sign_in(client, user.username, address=address)
    form = {
        "old_password": PASSWORD,
        "new_password1": "another-horse-42",
        "new_password2": "another-horse-42",
    }
    assert here.post(reverse("admin:password_change"), form).status_code == 302
    assert is_signed_in(here)
    assert not is_signed_in(there)
    with reading(tenant.id):
        entry = AuditEntry.objects.get(action="password.change")
    assert (entry.actor, entry.object_id) == (f"user:{user.pk}", str(user.pk))
    assert "horse" not in str(entry.after)


def test_an_open_session_cannot_try_passwords_without_end(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client(REMOTE_ADDR=address)
    sign_in(client, user.username, address=address)
    form = {"new_password1": "another-horse-42", "new_password2": "another-horse-42"}
    url = reverse("admin:password_change")
    for number in range(FREE):
        wrong = client.post(url, form | {"old_password": f"guess {number}"})
        assert "not right" in text_of(wrong)
    locked = client.post(url, form | {"old_password": PASSWORD})
    assert (locked.status_code, "Retry-After" in locked) == (429, True)
    user.refresh_from_db()
    assert user.check_password(PASSWORD)
    with reading(tenant.id):
        assert not AuditEntry.objects.filter(action="password.change").exists()


# The second factor


def enrol(client: Client, user: User) -> tuple[bytes, list[str]]:
    """Enrol an authenticator through the page; return its secret and the recovery codes."""
    account = reverse("admin:account")
    assert client.post(account, {"action": "begin", "password": PASSWORD}).status_code == 302
    text = text_of(client.get(account))
    assert "<svg" in text
    sealed = client.session["second_factor_enrolment"]
    from valdrix.kernel import signing

    secret = unseal_secret(person_id=user.pk, sealed=signing.decode(sealed))
    code = one_time_code(secret, step_of(datetime.now(UTC)) - 1)
    done = client.post(account, {"action": "confirm", "code": code})
    assert done.status_code == 200, text_of(done)
    codes = re.findall(r">([a-z2-7]{4}(?:-[a-z2-7]{4}){3})<", text_of(done))
    assert len(codes) == 10
    return secret, codes


def start(person: Person, address: str) -> tuple[User, Client, bytes, list[str]]:
    user = give_password(person)
    client = Client(REMOTE_ADDR=address)
    sign_in(client, user.username, address=address)
    return user, client, *enrol(client, user)


def give_code(client: Client, code: str, address: str) -> HttpResponse:
    return client.post(reverse("admin:login_code"), {"code": code}, REMOTE_ADDR=address)


def code_now(secret: bytes, *, off: int = 0) -> str:
    return one_time_code(secret, step_of(datetime.now(UTC)) + off)


def test_who_enrolled_signs_in_with_a_code_that_opens_once(tenant: World, address: str) -> None:
    user, _, secret, _ = start(tenant.owner, address)
    first, second = Client(), Client()
    for client in (first, second):
        response = sign_in(client, user.username, address=address)
        assert response["Location"].startswith(reverse("admin:login_code"))
        assert not is_signed_in(client)
    code = code_now(secret)
    assert give_code(first, code, address).status_code == 302
    assert is_signed_in(first)
    replay = give_code(second, code, address)
    assert replay.status_code == 422
    assert "was used before" in text_of(replay)
    assert not is_signed_in(second)
    assert give_code(second, code_now(secret, off=1), address).status_code == 302
    assert is_signed_in(second)


def test_one_code_given_many_times_at_once_opens_once(
    tenant: World, address: str, run_in_threads: Callable[..., list[object]]
) -> None:
    user, _, secret, _ = start(tenant.owner, address)
    clients = [Client() for _ in range(4)]
    for client in clients:
        sign_in(client, user.username, address=address)
    code = code_now(secret)
    statuses = run_in_threads(4, lambda n: give_code(clients[n], code, address).status_code)
    assert sorted(statuses) == [302, 422, 422, 422]


def test_codes_cannot_be_guessed(tenant: World, address: str) -> None:
    user, _, secret, _ = start(tenant.owner, address)
    client = Client()
    sign_in(client, user.username, address=address)
    wrong = f"{(int(code_now(secret)) + 500_000) % 1_000_000:06d}"
    statuses = [give_code(client, wrong, address).status_code for _ in range(7)]
    assert statuses == [422] * 5 + [429] * 2
    assert give_code(client, code_now(secret), address).status_code == 429
    assert not is_signed_in(client)


def test_a_recovery_code_opens_once_and_is_told(tenant: World, address: str) -> None:
    user, _, _, codes = start(tenant.owner, address)
    for expected in (302, 422):
        client = Client()
        sign_in(client, user.username, address=address)
        assert give_code(client, codes[3].upper(), address).status_code == expected
        assert is_signed_in(client) == (expected == 302)
    assert RecoveryCode.objects.filter(person_id=user.pk, used_at=None).count() == 9
    with reading(tenant.id):
        entry = AuditEntry.objects.get(action="second-factor.recover")
    assert entry.after == {"codes_left": 9}


def test_the_second_step_needs_the_first_and_soon(tenant: World, address: str) -> None:
    user, _, secret, _ = start(tenant.owner, address)
    stranger = Client()
    assert give_code(stranger, code_now(secret), address)["Location"] == reverse("admin:login")
    client = Client()
    sign_in(client, user.username, address=address)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        response = give_code(client, code_now(secret), address)
        assert response["Location"] == reverse("admin:login")
    user.set_password("quite-another-one")
    user.save(update_fields=["password"])
    assert give_code(client, code_now(secret), address)["Location"] == reverse("admin:login")
    assert not is_signed_in(client)


def test_the_second_step_leads_to_no_other_host(tenant: World, address: str) -> None:
    user, _, secret, _ = start(tenant.owner, address)
    client = Client()
    sign_in(client, user.username, address=address)
    response = client.post(
        reverse("admin:login_code"),
        {"code": code_now(secret), "next": "https://example.org/"},
        REMOTE_ADDR=address,
    )
    assert response["Location"] == reverse("admin:index")


def test_an_open_session_alone_enrols_and_removes_nothing(tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    client = Client(REMOTE_ADDR=address)
    sign_in(client, user.username, address=address)
    account = reverse("admin:account")
    refused = client.post(account, {"action": "begin", "password": "no"})
    assert refused.status_code == 422
    assert client.post(account, {"action": "confirm", "code": "123456"}).status_code == 409
    assert not SecondFactor.objects.filter(person_id=user.pk).exists()
    secret, _ = enrol(client, user)
    wrong = client.post(account, {"action": "remove", "password": "no", "code": code_now(secret)})
    assert wrong.status_code == 422
    assert client.post(account, {"action": "remove", "password": PASSWORD}).status_code == 422
    assert SecondFactor.objects.filter(person_id=user.pk).exists()
    terms = {"action": "remove", "password": PASSWORD, "code": code_now(secret)}
    assert client.post(account, terms).status_code == 302
    assert not SecondFactor.objects.filter(person_id=user.pk).exists()
    assert not RecoveryCode.objects.filter(person_id=user.pk).exists()
    assert client.post(account, {"action": "no such"}).status_code == 400


def test_new_recovery_codes_end_the_old_ones(tenant: World, address: str) -> None:
    user, client, secret, old = start(tenant.owner, address)
    page = client.post(reverse("admin:account"), {"action": "renew", "code": code_now(secret)})
    new = re.findall(r">([a-z2-7]{4}(?:-[a-z2-7]{4}){3})<", text_of(page))
    assert len(new) == 10
    assert not set(new) & set(old)
    other = Client()
    sign_in(other, user.username, address=address)
    assert give_code(other, old[0], address).status_code == 422
    assert give_code(other, new[0], address).status_code == 302


def test_neither_secret_nor_codes_are_stored_in_clear(tenant: World, address: str) -> None:
    user, _, secret, codes = start(tenant.owner, address)
    factor = SecondFactor.objects.get(person_id=user.pk)
    assert secret not in bytes(factor.sealed_secret)
    with pytest.raises(SealingError):
        unseal_secret(person_id=user.pk + 1, sealed=bytes(factor.sealed_secret))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t::text FROM governance_recovery_code t WHERE person_id=%s", [user.pk]
        )
        stored = " ".join(row[0] for row in cursor.fetchall())
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)


def test_every_tenant_of_a_person_is_told(tenant: World, other_tenant: World, address: str) -> None:
    user = give_password(tenant.owner)
    admit_member(actor=system_actor(other_tenant.id), username=user.username, role=MEMBER)
    start(tenant.owner, address)
    for world in (tenant, other_tenant):
        with reading(world.id):
            entry = AuditEntry.objects.get(action="second-factor.enrol")
        assert (entry.actor, entry.object_id) == (f"user:{user.pk}", str(user.pk))


def test_a_lost_factor_is_reset_at_the_machine(tenant: World, address: str) -> None:
    user, proved, _, _ = start(tenant.owner, address)
    out = StringIO()
    call_command("reset_second_factor", user.username, stdout=out)
    assert user.username in out.getvalue()
    assert not is_signed_in(proved), "the lost factor may have opened it"
    client = Client()
    assert sign_in(client, user.username, address=address)["Location"] == reverse("admin:index")
    with reading(tenant.id):
        entry = AuditEntry.objects.get(action="second-factor.reset")
    assert entry.actor == "system:reset-second-factor"
    for name in (user.username, "nobody of this name"):
        with pytest.raises(SystemExit) as ended:
            call_command("reset_second_factor", name, stderr=StringIO())
        assert ended.value.code == 1


def test_what_a_factor_opened_ends_with_it(tenant: World, address: str) -> None:
    user, here, secret, codes = start(tenant.owner, address)
    there = Client()
    sign_in(there, user.username, address=address)
    assert give_code(there, code_now(secret), address).status_code == 302
    form = {"action": "remove", "password": PASSWORD, "code": codes[0]}
    assert here.post(reverse("admin:account"), form).status_code == 302
    assert is_signed_in(here)
    assert "second_factor_at" not in here.session
    assert not is_signed_in(there)


@pytest.mark.parametrize("route", ["login", "login_code", "account", "password_change"])
def test_forms_need_the_token_of_their_page(tenant: World, address: str, route: str) -> None:
    user = give_password(tenant.owner)
    client = Client(enforce_csrf_checks=True, REMOTE_ADDR=address)
    client.force_login(user)
    fields: dict[str, Any] = {"username": user.username, "password": PASSWORD, "action": "begin"}
    assert client.post(reverse(f"admin:{route}"), fields).status_code == 403
