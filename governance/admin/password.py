"""The page of one's own password."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from unfold.forms import AdminOwnPasswordChangeForm

from governance.admin.signing_in import acting, is_own_password, with_wait
from governance.signin.operations import GuessesLocked, change_password


class PasswordForm(AdminOwnPasswordChangeForm):
    """Asks for the present password, each guess counted: an open session alone is not enough.

    :ivar request: of the page; guesses are counted for its address, too.
    :ivar wait: how long the next guess has to wait; None when it need not.
    """

    request: HttpRequest
    wait: timedelta | None = None

    def clean_old_password(self) -> str:
        """Check the present password, as a guess that is counted."""
        password = str(self.cleaned_data["old_password"])
        try:
            is_right = is_own_password(self.request, self.user, password, now=timezone.now())
        except GuessesLocked as locked:
            self.wait = locked.wait
            raise ValidationError(locked.detail) from None
        if not is_right:
            raise ValidationError("The current password is not right.")
        return password


class PasswordView(PasswordChangeView):
    """Changes the password of who is signed in; every other session of theirs ends."""

    form_class = PasswordForm

    def get_form(self, form_class: Any = None) -> Any:
        """Return the form, which knows the request."""
        form: Any = super().get_form(form_class)
        form.request = self.request
        return form

    def form_valid(self, form: Any) -> HttpResponse:
        """Change the password, on the record, and go on in this session."""
        person = acting(self.request, form.user, now=timezone.now())
        change_password(person=person, password=form.cleaned_data["new_password1"])
        form.user.refresh_from_db()
        update_session_auth_hash(self.request, form.user)
        return HttpResponseRedirect(str(self.get_success_url()))

    def form_invalid(self, form: Any) -> HttpResponse:
        """Show the form again; 429 with the time to wait when guesses are locked."""
        return with_wait(super().form_invalid(form), form.wait)
