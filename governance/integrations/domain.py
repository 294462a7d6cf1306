"""Integrations as values: kinds, what each is set up with, and the text of a secret. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from valdrix.kernel.addresses import AddressError, read_url
from valdrix.kernel.fields import Fields
from valdrix.kernel.signing import encode

RUN_TASK: Final = "run_task"
CLUSTER: Final = "cluster"
WEBHOOK: Final = "webhook"
KINDS: Final = (RUN_TASK, CLUSTER, WEBHOOK)

WEBHOOK_FORMATS: Final = ("generic", "slack")
"""What a webhook takes: Valdrix's own events, signed, or messages as Slack takes them."""

SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "vds_"  # noqa: S105 - how a secret begins, not one
PROJECT_LIMIT: Final = 200
ENVIRONMENT_LIMIT: Final = 200
NAMESPACE: Final = re.compile(r"\*|[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""A namespace's name, or ``*`` for every one that is not bound itself."""
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class BindingTerms:
    """Where a cluster's namespace belongs; the environment is free text."""

    project_id: str
    environment: str


def build_secret(random_bytes: bytes) -> str:
    """Return a secret's text: ``vds_`` and 32 random bytes in base64url.

    :raises ValueError: for another number of bytes.
    """
    if len(random_bytes) != SECRET_BYTES:
        raise ValueError(f"a secret takes {SECRET_BYTES} random bytes")
    return SECRET_PREFIX + encode(random_bytes)


def secret_context(integration_id: object) -> str:
    """Return what an integration's sealed secret is bound to."""
    return f"governance_integration:{integration_id}"


def read_settings(kind: str, settings: object, *, pointer: str = "/settings") -> dict[str, Any]:
    """Return an integration's settings in their stored form.

    :raises InvalidRequest: with a JSON pointer for each member that is wrong or unknown.
    """
    fields = Fields({} if settings is None else settings, pointer=pointer)
    stored = _READERS[kind](fields)
    fields.finish("The integration's settings are not valid.")
    return {name: value for name, value in stored.items() if value is not None}


def _read_run_task(fields: Fields) -> dict[str, Any]:
    """Read where a run's cost lands when the workspace's own name does not say it."""
    return {"environment": fields.text("environment")}


def _read_cluster(fields: Fields) -> dict[str, Any]:
    """Read the cluster's name, the environment it is, and whose API key its reviews come with.

    A name keeps its admissions' resource references when the integration is replaced by another.
    """
    return {
        "cluster": fields.text("cluster", pattern=_CLUSTER_NAME),
        "environment": fields.text("environment", max_length=ENVIRONMENT_LIMIT),
        "api_key_id": fields.text("api_key_id", pattern=_KEY_ID),
    }


def _read_webhook(fields: Fields) -> dict[str, Any]:
    """Read where notifications go, and which ones."""
    url = fields.text("url", required=True, max_length=2000)
    if url is not None:
        try:
            read_url(url)
        except AddressError as error:
            fields.refuse("url", str(error))
    return {"url": url, "format": fields.choice("format", WEBHOOK_FORMATS)}


_READERS: Final = {RUN_TASK: _read_run_task, CLUSTER: _read_cluster, WEBHOOK: _read_webhook}
