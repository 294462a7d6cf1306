"""Handlers that work for whom a key is assumed to speak, and answer once the database confirmed it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from django.http import HttpResponse
from rest_framework.request import Request

from governance.api.authentication import CONFIRMS, ApiKeyAuthentication, assumption_of
from governance.identity.assuming import Assumption, NotAsAssumed
from valdrix.kernel.db import Condition, read_only_if, sqlstate_of
from valdrix.kernel.http.letting_go import ApiView

Handler = Callable[..., HttpResponse]

_IN_FULL: Final = ApiKeyAuthentication()
CHANGED: Final = "VX008"
"""SQLSTATE of a read whose key is not what it was taken for."""
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})
_UNLESS_CHANGED: Final = "SELECT governance_refuse_changed_keys(%s)"


def confirming(handler: Handler) -> Handler:
    """Return a view's method whose request may be authenticated by assumption.

    The method writes nothing and shows nothing before it has the assumption confirmed, and raises
    ``NotAsAssumed`` where that fails. Whatever leaves the method unconfirmed, an answer or a
    refusal, is held back until the key was authenticated in full: where it speaks for somebody
    else the method is called again, and where it speaks for nobody the answer is that.

    What a method reads at once confirms the assumption on its way (``read_only_if``).
    """

    @functools.wraps(handler)
    def answer(view: ApiView, request: Request) -> HttpResponse:
        assumption = assumption_of(request)
        if assumption is None:
            return handler(view, request)
        if request.method not in _WITHOUT_BODY:
            try:
                request.data  # noqa: B018 - read here, because a body that is refused is read once
            except Exception:
                _authenticate(view, request)
                raise
        try:
            with read_only_if(_is_as_assumed(assumption)):
                response = handler(view, request)
        except NotAsAssumed:
            assumption.refuted()
            _authenticate(view, request)
        except Exception as error:
            if sqlstate_of(error) == CHANGED:
                assumption.refuted()
                _authenticate(view, request)
            elif assumption.is_confirmed or not _is_another(view, request):
                raise
        else:
            if assumption.is_confirmed or not _is_another(view, request):
                return response
        return handler(view, request)

    marked: Any = answer
    setattr(marked, CONFIRMS, True)
    return answer


def _is_as_assumed(assumption: Assumption) -> Condition:
    return Condition(_UNLESS_CHANGED, [f"[{assumption.told}]"], assumption.note)


def _is_another(view: ApiView, request: Request) -> bool:
    """Authenticate a request in full, and tell whether that gave another principal than before."""
    assumed = request.user
    _authenticate(view, request)
    return bool(request.user != assumed)


def _authenticate(view: ApiView, request: Request) -> None:
    """Authenticate a request in full, and let it in as whoever it is then.

    :raises AuthenticationFailed: when its key speaks for nobody.
    :raises NotAllowed: when it speaks for somebody who may not do this.
    """
    request.assumption = None  # type: ignore[attr-defined] # what it was is of no use any more
    found = _IN_FULL.authenticate_in_full(request)
    assert found is not None
    request.user, request.auth = found  # type: ignore[assignment] # a principal, on every view here
    view.check_permissions(request)
    view.check_throttles(request)
