"""Logs: one JSON object a line on standard error, with the request's id and no secret."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from valdrix.kernel.request_context import current_request_id

_SECRET: Final = re.compile(r"vdx_[0-9A-Za-z]{4,}[0-9A-Za-z_]*|(?i:bearer)\s+\S+")


class JsonFormatter(logging.Formatter):
    """Renders a log record as one JSON object; anything shaped like a credential is masked."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
        }
        request_id = current_request_id()
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = mask_secrets(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


def mask_secrets(text: str) -> str:
    """Return a text with API keys and bearer tokens replaced."""
    return _SECRET.sub("[secret]", text)


def build_logging(*, level: str) -> dict[str, Any]:
    """Return the value of Django's ``LOGGING`` setting."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.server": {"handlers": ["stderr"], "propagate": False, "level": "WARNING"},
            "django.request": {"level": "ERROR"},
        },
    }
