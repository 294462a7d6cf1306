"""Serving: the WSGI application refuses to work on a database that does not fit this release."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection

from valdrix.checks import check_database_role
from valdrix.health import NotReady, check_ready
from valdrix.kernel.http.probes import PROBES
from valdrix.kernel.http.problem_response import problem_response

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_NO_ANSWER = "valdrix.E004"


class GuardedApplication:
    """A WSGI application that serves only once the database is known to fit.

    A role that could bypass row-level security, or a schema with pending migrations, ends the
    process when it starts. A database that is away at that moment does not: then requests ask
    again until it answers, and are let through to fail in their own way while it does not.
    Once it fits, nothing is asked any more.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._fits = False
        refusal = self._find_refusal()
        connection.close()  # A server that forks after this must not share the socket.
        if refusal is not None:
            raise ImproperlyConfigured(f"Valdrix refuses to serve. {refusal}")

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request; 503 while the database answers and does not fit.

        Probes say why nothing else is served.
        """
        if not self._fits and environ.get("PATH_INFO") not in PROBES:
            refusal = self._find_refusal()
            if refusal is not None:
                response = problem_response("not_ready", refusal)
                start_response(
                    f"{response.status_code} {response.reason_phrase}", list(response.items())
                )
                return [response.content]
        return self._application(environ, start_response)

    def _find_refusal(self) -> str | None:
        """Return why the database does not fit, or None when it does or does not answer."""
        try:
            check_ready()
        except NotReady as error:
            is_away = isinstance(error.__cause__, DatabaseError | InterfaceError)
            return None if is_away else error.detail
        messages = check_database_role(databases=["default"])
        if any(message.id == _NO_ANSWER for message in messages):
            return None
        self._fits = not messages
        return "; ".join(str(message.msg) for message in messages) or None
