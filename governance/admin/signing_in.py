"""The console's door: a password, a second step for who has one, and sessions that end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib.auth import SESSION_KEY, authenticate, login, logout
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from unfold.forms import AuthenticationForm

from governance.identity.models import User
from governance.signin.domain import ACCOUNT, ADDRESS, FACTOR, Slot, account_name, address_name
from governance.signin.operations import (
    CodeRefused,
    GuessesLocked,
    Person,
    begin_guess,
    find_slot,
    forgive_guess,
    use_code,
)
from governance.signin.queries import find_factor
from valdrix.kernel.http.client_address import client_address
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import AUTH_ATTEMPTS

IDLE_LIMIT: Final = timedelta(hours=1)
"""A session that nobody uses for this long ends."""
SESSION_LIMIT: Final = timedelta(hours=12)
"""Every session ends after this, used or not."""
_STEP_LIMIT: Final = timedelta(minutes=5)
_NOTE_SEEN_EVERY: Final = timedelta(minutes=1)
_PASSWORD_LIMIT: Final = 1024
_CODE_LIMIT: Final = 40

_SIGNED_IN: Final = "signed_in_at"
_SEEN: Final = "seen_at"
_FACTOR: Final = "second_factor_at"
_STEP: Final = "second_step"
_KNOWN: Final = "valdrix_known"
_KNOWN_FOR: Final = timedelta(days=180)


class SignInForm(AuthenticationForm):
    """Lets every active person in whose guess is free; what they see depends on memberships.

    :ivar wait: how long the next guess has to wait; None when it need not.
    """

    wait: timedelta | None = None

    def clean(self) -> dict[str, Any]:
        """Count the guess, then judge it."""
        username = str(self.cleaned_data.get("username") or "")
        password = str(self.cleaned_data.get("password") or "")
        if not username or not password or len(password) > _PASSWORD_LIMIT:
            raise self.get_invalid_login_error()
        account, address = account_slot(self.request, username), address_slot(self.request)
        try:
            begin_guess(slots=[account, address], now=timezone.now())
        except GuessesLocked as locked:
            self.wait = locked.wait
            AUTH_ATTEMPTS.labels("console_locked").inc()
            raise ValidationError(locked.detail) from None
        self.user_cache = authenticate(self.request, username=username, password=password)
        if self.user_cache is None:
            AUTH_ATTEMPTS.labels("console_failed").inc()
            raise self.get_invalid_login_error()
        forgive_guess(cleared=[account], lessened=[address])
        return dict(self.cleaned_data)


class SignInView(LoginView):
    """The first step: user name and password."""

    authentication_form = SignInForm
    template_name = "admin/login.html"

    def form_valid(self, form: Any) -> HttpResponse:
        """Open the session, or ask for the second step where there is one."""
        person, to = form.get_user(), self.get_success_url()
        if find_factor(person.pk) is None:
            open_session(self.request, person, with_factor=False)
            return _known_from_now_on(person, HttpResponseRedirect(to))
        _begin_second_step(self.request, person)
        query = urlencode({self.redirect_field_name: to})
        return HttpResponseRedirect(f"{reverse('admin:login_code')}?{query}")

    def form_invalid(self, form: Any) -> HttpResponse:
        """Show the form again; 429 with the time to wait when guesses are locked."""
        response = self.render_to_response(self.get_context_data(form=form, wait=form.wait))
        return with_wait(response, form.wait)


class CodeForm(forms.Form):
    """A one-time or a recovery code."""

    code = forms.CharField(max_length=_CODE_LIMIT, strip=True)


def second_step(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Answer the second step: the code of who has given the password within five minutes."""
    person, now = _person_of_step(request), timezone.now()
    if person is None:
        return HttpResponseRedirect(reverse("admin:login"))
    wait: timedelta | None = None
    is_wrong = False
    if request.method == "POST":
        form = CodeForm(request.POST)
        is_wrong = True
        if form.is_valid():
            try:
                take_code(request, person, form.cleaned_data["code"], now=now)
            except GuessesLocked as locked:
                wait, is_wrong = locked.wait, False
            except CodeRefused:
                AUTH_ATTEMPTS.labels("console_code_failed").inc()
            else:
                open_session(request, person, with_factor=True)
                done = HttpResponseRedirect(_next_of(request))
                return _known_from_now_on(person, done)
    page = TemplateResponse(
        request,
        "valdrix/second_step.html",
        {**context, "wait": wait, "is_wrong": is_wrong, "next": _next_of(request)},
        status=422 if is_wrong else 200,
    )
    return with_wait(page, wait)


def take_code(request: HttpRequest, person: User, code: str, *, now: datetime) -> None:
    """Take a code that opens once, each guess counted.

    :raises GuessesLocked: when too many were wrong.
    :raises CodeRefused: when this one is.
    """
    factor, address = find_slot(FACTOR, name=str(person.pk)), address_slot(request)
    begin_guess(slots=[factor, address], now=now)
    use_code(person=acting(request, person, now=now), code=code)
    forgive_guess(cleared=[factor], lessened=[address])


def is_own_password(request: HttpRequest, person: User, password: str, *, now: datetime) -> bool:
    """Tell whether this is the password of who is signed in, counted as a guess at their account.

    :raises GuessesLocked: when too many guesses failed.
    """
    account, address = account_slot(request, person.get_username()), address_slot(request)
    begin_guess(slots=[account, address], now=now)
    if not person.check_password(password):
        return False
    forgive_guess(cleared=[account], lessened=[address])
    return True


def acting(request: HttpRequest, person: User, *, now: datetime) -> Person:
    """Return a person who acts on their own second factor by this request."""
    return Person(person_id=person.pk, address=client_address(request), at=now)


def account_slot(request: HttpRequest, username: str) -> Slot:
    """Return the slot of guesses at an account.

    A browser in which somebody signed in to it before has one of its own: strangers who guess at a
    name lock out strangers, not its owner.
    """
    name = account_name(username)
    known = request.get_signed_cookie(_KNOWN, default="", salt=_KNOWN, max_age=_KNOWN_FOR) or ""
    owner, _, browser = known.rpartition(" ")
    return find_slot(ACCOUNT, name=f"{name} {browser}" if browser and owner == name else name)


def _known_from_now_on(person: User, response: HttpResponse) -> HttpResponse:
    """Let a browser remember, signed, that this person signed in with it."""
    response.set_signed_cookie(
        _KNOWN,
        f"{account_name(person.get_username())} {new_id()}",
        salt=_KNOWN,
        max_age=_KNOWN_FOR,
        path=reverse("admin:index"),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    return response


def address_slot(request: HttpRequest) -> Slot:
    """Return the slot of the request's address."""
    return find_slot(ADDRESS, name=address_name(client_address(request)))


def open_session(request: HttpRequest, person: User, *, with_factor: bool) -> None:
    """Sign a person in, under a new session key, and note when."""
    login(request, person, backend="django.contrib.auth.backends.ModelBackend")
    AUTH_ATTEMPTS.labels("console_ok").inc()
    now = timezone.now().isoformat()
    request.session.pop(_STEP, None)
    request.session[_SIGNED_IN] = request.session[_SEEN] = now
    if with_factor:
        request.session[_FACTOR] = now


def note_factor(request: HttpRequest, *, now: datetime | None) -> None:
    """Note that this session proved a second factor; None takes it back."""
    if now is None:
        request.session.pop(_FACTOR, None)
    else:
        request.session[_FACTOR] = now.isoformat()


def has_second_factor(request: HttpRequest) -> bool:
    """Tell whether this session proved a second factor."""
    return _FACTOR in request.session


def end_if_over(request: HttpRequest, *, now: datetime) -> bool:
    """Sign out a session that is too old or was idle for too long; tell whether it was.

    The moment it was last seen is written once a minute, not with every page.
    """
    session = request.session
    if SESSION_KEY not in session:
        return False
    began, seen = _moment(session.get(_SIGNED_IN)), _moment(session.get(_SEEN))
    if began is None or seen is None:
        session[_SIGNED_IN] = session[_SEEN] = now.isoformat()
        return False
    if now - began >= SESSION_LIMIT or now - seen >= IDLE_LIMIT:
        logout(request)
        return True
    if now - seen >= _NOTE_SEEN_EVERY:
        session[_SEEN] = now.isoformat()
    return False


def with_wait(response: Any, wait: timedelta | None) -> HttpResponse:
    """Return a response that says how long to wait, in its status and in words."""
    if wait is not None:
        seconds = max(1, int(wait.total_seconds()) + 1)
        response.status_code = 429
        response["Retry-After"] = str(seconds)
        response.context_data["wait_text"] = _in_words(seconds)
    result: HttpResponse = response
    return result


def _begin_second_step(request: HttpRequest, person: User) -> None:
    """Remember, in a session of its own, who gave the password; nobody is signed in by that."""
    request.session.flush()
    request.session[_STEP] = {
        "person": person.pk,
        "at": timezone.now().isoformat(),
        "password": person.get_session_auth_hash(),
    }


def _person_of_step(request: HttpRequest) -> User | None:
    step: dict[str, Any] = getattr(request, "session", {}).get(_STEP) or {}
    began = _moment(step.get("at"))
    if began is None or timezone.now() - began >= _STEP_LIMIT:
        return None
    person = User.objects.filter(pk=step["person"], is_active=True).first()
    # A password that was changed meanwhile has to be given anew.
    if person is None or person.get_session_auth_hash() != step["password"]:
        return None
    return person


def _next_of(request: HttpRequest) -> str:
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_own = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if is_own else reverse("admin:index")


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _in_words(seconds: int) -> str:
    minutes = -(-seconds // 60)
    if seconds <= 60:
        return f"{seconds} seconds"
    return f"{minutes} minutes" if minutes > 1 else "a minute"
