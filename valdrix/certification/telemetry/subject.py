"""The subject: a tenant of its own for each injection, and the same seeded questions to its gates."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from typing import Any, Final

import orjson
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from enforcement.gate.failsafe import REASONS, TIMEOUT
from governance.audit.operations import Actor
from governance.identity.domain import OWNER, RANDOM_BYTES, SCOPES
from governance.identity.operations import found_tenant, issue_api_key
from governance.models import User
from valdrix.certification.telemetry.calling import Answer, Place, call
from valdrix.kernel.ids import new_id

BASE: Final = "/api/v1/enforcement/"
_SEED: Final = 20260112
_ASK_FOR_SECONDS: Final = 60.0
_POLICY: Final = {
    "schema_version": "valdrix.enforcement.policy.v1",
    "modes": {"terraform": {"default": "hard", "prod": "soft"}},
    "thresholds": {
        "prod": {"require_approval_from_usd": "500.00"},
        "nonprod": {"require_approval_from_usd": "1000000.00"},
    },
    "limits": {"plan_monthly_ceiling_usd": "10000000.00"},
}
_BUDGETS: Final = (
    {"project_id": "ample", "monthly_limit_usd": "100000.00"},
    {"project_id": "tight", "monthly_limit_usd": "500.00"},
)
_CREDIT: Final = {
    "project_id": "tight", "pool": "reserved", "total_amount_usd": "200.00", "reason": "certify",
}  # fmt: skip
_COMPARED: Final = (
    "decision", "mode", "mode_scope", "reason_codes", "entitlement_reason_code", "would_have_been",
    "reserved_allocation_usd", "reserved_reserved_credit_usd", "reserved_emergency_credit_usd",
    "request_fingerprint", "change_fingerprint", "cost_state", "approval_required", "persisted",
)  # fmt: skip
"""What does not depend on ids and times."""


@dataclass(frozen=True, slots=True)
class Question:
    """One gate call: its key and its body."""

    key: str
    body: dict[str, Any]


@dataclass(slots=True)
class Asked:
    """The answers to the questions so far.

    :ivar compared: of each, what has to be the same whatever telemetry does.
    :ivar retries: how often a question had to be sent again: a killed worker, a restarting server.
    """

    compared: list[dict[str, Any]] = field(default_factory=list)
    decision_ids: list[uuid.UUID] = field(default_factory=list)
    slowest_ms: int = 0
    timed_out: int = 0
    retries: int = 0

    @property
    def sha256(self) -> str:
        """Return the digest of what is compared."""
        text = orjson.dumps(self.compared, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()


class Subject:
    """One tenant, seen with its owner's key and session, and the answers of its gates."""

    def __init__(self, *, tenant_id: uuid.UUID, api: Place, console: Place) -> None:
        self.tenant_id = tenant_id
        self.api = api
        self.console = console
        self.asked = Asked()

    def get(self, path: str) -> Answer:
        """Read something of truth as the owner."""
        return call(self.api, "GET", path if path.startswith("/") else BASE + path)

    def ask(self, question: Question) -> dict[str, Any]:
        """Ask until there is an evaluated answer, as a pipeline does, and keep it.

        :raises TimeoutError: when there is none within a minute.
        """
        deadline = time.monotonic() + _ASK_FOR_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = call(
                    self.api, "POST", f"{BASE}gate/terraform", question.body,
                    idempotency_key=question.key,
                )  # fmt: skip
            except (OSError, http.client.HTTPException):
                self.asked.retries += 1
                time.sleep(0.1)
                continue
            if answer.status == 200 and not set(answer.body["reason_codes"]) & set(REASONS):
                return self._keep(answer)
            if answer.status == 200 and TIMEOUT in answer.body["reason_codes"]:
                self.asked.timed_out += 1
            self.asked.retries += 1
            time.sleep(0.1)
        raise TimeoutError(f"no answer to {question.key}")

    def _keep(self, answer: Answer) -> dict[str, Any]:
        body: dict[str, Any] = answer.body
        self.asked.slowest_ms = max(self.asked.slowest_ms, answer.took_ms)
        self.asked.compared.append({name: body[name] for name in _COMPARED})
        self.asked.decision_ids.append(uuid.UUID(body["decision_id"]))
        return body


def create_subject(place: Place, name: str, *, at: datetime) -> Subject:
    """Found a tenant of its own, and open its policy, budgets and credits through the API.

    :raises RuntimeError: when the API does not take them.
    """
    tenant_id = new_id()
    slug = f"{name.lower()}-{tenant_id.hex[-12:]}"
    actor = Actor(tenant_id=tenant_id, principal_id="system:certification", address=None, at=at)
    membership = found_tenant(actor=actor, slug=slug, name=slug, owner=f"owner@{slug}")
    _, key = issue_api_key(
        actor=actor,
        key_id=new_id(),
        random_bytes=os.urandom(RANDOM_BYTES),
        name="certification",
        role=OWNER,
        person_id=membership.user_id,
        scopes=SCOPES,
    )
    subject = Subject(
        tenant_id=tenant_id,
        api=Place(place.host, place.port, key=key),
        console=Place(place.host, place.port, cookie=sign_in(membership.user)),
    )
    document = {"policy_document": _POLICY, "comment": "certification", "base_version": 0}
    bodies = [("PUT", "policies", document)]
    bodies += [("POST", "budgets", dict(budget)) for budget in _BUDGETS]
    bodies += [("POST", "credits", dict(_CREDIT))]
    for method, path, body in bodies:
        answer = call(subject.api, method, BASE + path, body)
        if answer.status not in {200, 201}:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body}")
    return subject


def build_questions(count: int) -> Sequence[Question]:
    """Return the same questions every time: allowed, denied, on credit, and for people to approve."""
    rng = random.Random(_SEED)  # noqa: S311 - seeded on purpose
    questions = []
    for number in range(count):
        project = "tight" if number % 3 == 0 else "ample"
        environment = "prod" if number % 4 == 3 else "dev"
        amount = Decimal(rng.randrange(1_000, 90_000)) / 100
        body = {
            "project_id": project,
            "environment": environment,
            "resource_reference": f"module.m{number}",
            "estimated_monthly_delta_usd": f"{amount:.2f}",
        }
        questions.append(Question(f"certify-{number}", body))
    return questions


def probe_question(name: str) -> Question:
    """Return a question that a probe asks, of a project of its own."""
    body = {
        "project_id": "probe",
        "environment": "dev",
        "resource_reference": f"module.{name}",
        "estimated_monthly_delta_usd": "0.01",
    }
    return Question(f"probe-{new_id()}", body)


def sign_in(user: User) -> str:
    """Return the cookie of a session of the console for a person."""
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
