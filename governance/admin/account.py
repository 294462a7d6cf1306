"""The page of one's own sign-in: the second factor, its recovery codes, and other sessions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import segno
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

from governance.admin.signing_in import (
    acting,
    address_slot,
    is_own_password,
    note_factor,
    with_wait,
)
from governance.identity.models import User
from governance.signin.domain import (
    FACTOR,
    RECOVERY_BYTES,
    RECOVERY_CODES,
    SECRET_BYTES,
    provisioning_uri,
    secret_text,
)
from governance.signin.operations import (
    CodeRefused,
    FactorEnrolled,
    GuessesLocked,
    SealingKeyMissing,
    begin_guess,
    end_sessions,
    enrol_factor,
    find_slot,
    forgive_guess,
    remove_factor,
    renew_recovery_codes,
    seal_secret,
    unseal_secret,
)
from governance.signin.queries import count_recovery_codes, find_factor
from valdrix.kernel import signing
from valdrix.kernel.problems import Refused

_ENROLMENT: Final = "second_factor_enrolment"
_CODES_BYTES: Final = RECOVERY_CODES * RECOVERY_BYTES


class PasswordRefused(Refused):
    """The current password was not given (422)."""

    code = "password_refused"


def account_page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the page, or do by POST what one of its forms asks for."""
    page = _Page(request, context)
    if request.method != "POST":
        return page.show()
    action = _ACTIONS.get(request.POST.get("action", ""))
    if action is None:
        return page.show(error="That is no action of this page.", status=400)
    try:
        return action(page)
    except GuessesLocked as locked:
        return with_wait(page.show(error=locked.detail), locked.wait)
    except (CodeRefused, FactorEnrolled, PasswordRefused, SealingKeyMissing) as refused:
        return page.show(error=refused.detail, status=refused.status)


class _Page:
    """One request of the page, by the person who is signed in."""

    def __init__(self, request: HttpRequest, context: dict[str, Any]) -> None:
        person = request.user
        assert isinstance(person, User), "the page is for who is signed in"
        self._request, self._context, self._person = request, context, person
        self._now = timezone.now()
        self._acting = acting(request, person, now=self._now)

    def show(self, *, status: int = 200, **more: Any) -> HttpResponse:
        """Return the page as it now stands."""
        factor = find_factor(self._person.pk)
        page = {
            **self._context,
            "factor": factor,
            "codes_left": count_recovery_codes(self._person.pk) if factor else 0,
            "enrolment": {} if factor else self._enrolment(),
            **more,
        }
        return TemplateResponse(self._request, "valdrix/account.html", page, status=status)

    def begin(self) -> HttpResponse:
        """Make a secret and keep it, sealed, in the session until it is confirmed."""
        self._check_password()
        sealed = seal_secret(person_id=self._person.pk, secret=os.urandom(SECRET_BYTES))
        self._request.session[_ENROLMENT] = signing.encode(sealed)
        return self._again()

    def give_up(self) -> HttpResponse:
        """Forget a secret that was not confirmed."""
        self._request.session.pop(_ENROLMENT, None)
        return self._again()

    def confirm(self) -> HttpResponse:
        """Turn the second factor on, and show the recovery codes once."""
        sealed = self._request.session.get(_ENROLMENT)
        if sealed is None:
            return self.show(error="Begin the set-up again.", status=409)
        codes = enrol_factor(
            person=self._acting,
            sealed_secret=signing.decode(sealed),
            code=self._text("code"),
            random_bytes=os.urandom(_CODES_BYTES),
        )
        del self._request.session[_ENROLMENT]
        note_factor(self._request, now=self._now)
        return self.show(codes=codes)

    def renew(self) -> HttpResponse:
        """Replace the recovery codes, and show the new ones once."""
        with self._guess_of_a_code():
            codes = renew_recovery_codes(
                person=self._acting,
                code=self._text("code"),
                random_bytes=os.urandom(_CODES_BYTES),
            )
        return self.show(codes=codes)

    def remove(self) -> HttpResponse:
        """Turn the second factor off."""
        self._check_password()
        with self._guess_of_a_code():
            remove_factor(person=self._acting, code=self._text("code"))
        self._keep_session()
        note_factor(self._request, now=None)
        messages.success(
            self._request, "The second factor is removed, and every other session signed out."
        )
        return self._again()

    def end_sessions(self) -> HttpResponse:
        """Sign out every other session."""
        end_sessions(person=self._acting)
        self._keep_session()
        messages.success(self._request, "Every other session of yours is signed out.")
        return self._again()

    def _keep_session(self) -> None:
        """Let this session go on where all of the person's have just ended."""
        self._person.refresh_from_db()
        update_session_auth_hash(self._request, self._person)

    def _enrolment(self) -> dict[str, Any]:
        sealed = self._request.session.get(_ENROLMENT)
        if sealed is None:
            return {}
        secret = unseal_secret(person_id=self._person.pk, sealed=signing.decode(sealed))
        text = secret_text(secret)
        return {
            "qr": _qr_code(provisioning_uri(secret, username=self._person.get_username())),
            "secret": " ".join(text[at : at + 4] for at in range(0, len(text), 4)),
        }

    def _check_password(self) -> None:
        """Check the current password, counted as a guess: an open session alone may not do this.

        :raises GuessesLocked: when too many guesses failed.
        :raises PasswordRefused: when it is wrong.
        """
        password = self._text("password", limit=1024)
        if not is_own_password(self._request, self._person, password, now=self._now):
            raise PasswordRefused("The current password is not right.")

    @contextmanager
    def _guess_of_a_code(self) -> Iterator[None]:
        factor, address = find_slot(FACTOR, name=str(self._person.pk)), address_slot(self._request)
        begin_guess(slots=[factor, address], now=self._now)
        yield
        forgive_guess(cleared=[factor], lessened=[address])

    def _text(self, name: str, *, limit: int = 40) -> str:
        return str(self._request.POST.get(name, ""))[:limit]

    def _again(self) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:account"))


_ACTIONS: Final = {
    "begin": _Page.begin,
    "give-up": _Page.give_up,
    "confirm": _Page.confirm,
    "renew": _Page.renew,
    "remove": _Page.remove,
    "end-sessions": _Page.end_sessions,
}


def _qr_code(text: str) -> SafeString:
    """Return a QR code as an inline SVG; nothing leaves the machine."""
    code = segno.make(text, error="m", micro=False)
    svg = code.svg_inline(scale=5, border=4, dark="#0f172a", light="#ffffff", omitsize=True)
    return mark_safe(svg)  # noqa: S308 - made of a matrix of our own; the text is only drawn
