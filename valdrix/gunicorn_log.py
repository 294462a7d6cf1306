"""The access log: a line a request, made of what its format names and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from gunicorn.glogging import Logger

FORMAT: Final = '%(h)s %(t)s "%(m)s %(U)s" %(s)s %(B)s %(M)sms'
"""The path without its query: whoever puts a credential there must not find it in a log."""


class AccessLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """Gunicorn's log, which collects for each line all headers and the whole environment."""

    def atoms(
        self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta
    ) -> dict[str, Any]:
        """Return what :data:`FORMAT` names, or all that there is for a format of somebody's own."""
        if self.cfg.access_log_format != FORMAT:
            every = super().atoms(resp, req, environ, request_time)
            return {name: _on_one_line(value) for name, value in every.items()}
        status = resp.status
        return {
            "h": environ.get("REMOTE_ADDR", "-"),
            "t": self.now(),
            "m": _on_one_line(environ.get("REQUEST_METHOD")),
            "U": _on_one_line(environ.get("PATH_INFO")),
            "s": status.split(None, 1)[0] if isinstance(status, str) else status,
            "B": getattr(resp, "sent", None),
            "M": request_time // timedelta(milliseconds=1),
        }


def _on_one_line(value: Any) -> Any:
    """Return a text with what is not to be printed escaped: an end of a line would begin a forged one."""
    if not isinstance(value, str) or (value.isprintable() and "\\" not in value):
        return value
    return value.encode("unicode_escape").decode("ascii")
