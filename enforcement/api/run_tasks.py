"""The door of HCP Terraform's run tasks: a signed call is stored and answered at once (SPEC 8)."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from enforcement.adapters.run_task import is_registration, is_signed, read_call
from enforcement.run_tasks.operations import Receipt, RunTaskHostNotAllowed, receive
from governance.api.authentication import refuse_credential
from governance.api.callers import actor_of, principal_of
from governance.api.permissions import RequireRole
from governance.api.throttling import GateThrottle
from governance.identity.domain import MEMBER, Principal
from governance.integrations.domain import RUN_TASK
from governance.integrations.queries import (
    Caller,
    find_active_integration,
    find_caller,
    read_secret,
)
from valdrix.kernel.addresses import AddressError, read_url
from valdrix.kernel.db import reading
from valdrix.kernel.http.bodies import BodyTooLarge
from valdrix.kernel.http.letting_go import ApiView
from valdrix.kernel.ids import new_id
from valdrix.kernel.metrics import AUTH_ATTEMPTS
from valdrix.kernel.problems import FieldError
from valdrix.kernel.prompting import prompt

SIGNATURE_HEADER: Final = "X-TFC-Task-Signature"
JOB: Final = "work-run-tasks"
_BODY_BYTES: Final = 1024 * 1024
_CALL_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A call as the platform sends it; unknown members are tolerated.",
    "properties": {
        "access_token": {"type": "string"},
        "capabilities": {"type": "object", "properties": {"outcomes": {"type": "boolean"}}},
        "is_speculative": {"type": "boolean"},
        "organization_name": {"type": "string"},
        "plan_json_api_url": {"type": ["string", "null"]},
        "run_id": {"type": "string"},
        "stage": {"type": "string", "enum": ["pre_plan", "post_plan", "pre_apply", "post_apply"]},
        "task_result_callback_url": {"type": "string"},
        "task_result_enforcement_level": {"type": "string"},
        "task_result_id": {"type": "string"},
        "workspace_name": {"type": "string"},
    },
    "required": ["access_token"],
}


class RunTaskSignature(BaseAuthentication):
    """Takes the platform's signature of the raw body, made with the integration's secret.

    An unknown integration, a revoked one, a missing key and a wrong signature are one answer.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Caller] | None:
        """Return whom the integration speaks for, and the integration; None without a signature.

        :raises AuthenticationFailed: when the body was not signed with its secret.
        :raises Throttled: when the address has tried too often.
        """
        signature: str | None = request.headers.get(SIGNATURE_HEADER)
        if signature is None:
            return None
        body = _read_body(request)
        integration_id = request.parser_context["kwargs"].get("integration_id")
        caller = None if integration_id is None else find_caller(integration_id, RUN_TASK)
        secret = None if caller is None else _secret_of(caller)
        is_valid = is_signed(body, signature=signature, secret=secret)
        AUTH_ATTEMPTS.labels("ok" if is_valid else "failed").inc()
        if caller is None or not is_valid:
            refuse_credential(request)
        return caller.principal, caller

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401."""
        return f'{SIGNATURE_HEADER} realm="valdrix"'


class RunTaskView(ApiView):
    """``POST gate/terraform/run-task/{integration_id}``."""

    authentication_classes = (RunTaskSignature,)
    permission_classes = (RequireRole(MEMBER),)
    throttle_classes = (GateThrottle,)
    max_body_bytes = _BODY_BYTES

    @extend_schema(
        operation_id="run_task",
        tags=["gate"],
        summary="A run task of HCP Terraform or Terraform Enterprise asks.",
        request={"application/json": _CALL_SCHEMA},
        responses={200: None},
    )
    def post(self, request: Request, integration_id: uuid.UUID) -> HttpResponse:
        """Take a call; what became of it is told to its callback."""
        document = request.data
        if is_registration(document):
            return HttpResponse(status=200)
        call = read_call(document)
        _check_host(call.callback_url, "/task_result_callback_url")
        if call.plan_url is not None:
            _check_host(call.plan_url, "/plan_json_api_url")
        receipt = Receipt(
            row_id=new_id(),
            decision_id=new_id(),
            integration_id=integration_id,
            person_id=principal_of(request).person_id,
            call=call,
        )
        if receive(actor=actor_of(request, now=timezone.now()), receipt=receipt):
            prompt(JOB)
        return HttpResponse(status=200)


def _read_body(request: Request) -> bytes:
    """Return the raw body, which the parser reads again.

    :raises BodyTooLarge: above 1 MiB.
    """
    text = request.META.get("CONTENT_LENGTH") or "0"
    if text.isascii() and text.isdigit() and int(text) > _BODY_BYTES:
        raise BodyTooLarge(f"The body is larger than {_BODY_BYTES} bytes.")
    body: bytes = request._request.body  # noqa: SLF001 - the framework's wrapper has no other way
    return body


def _secret_of(caller: Caller) -> str | None:
    tenant_id = caller.principal.tenant_id
    with reading(tenant_id):
        integration = find_active_integration(tenant_id, caller.integration_id)
    return None if integration is None else read_secret(integration)


def _check_host(url: str, pointer: str) -> None:
    """Refuse a URL that this server may not call.

    :raises RunTaskHostNotAllowed: with the member's pointer.
    """
    try:
        target = read_url(url)
    except AddressError as error:
        raise RunTaskHostNotAllowed(
            "The call names an address that may not be called.",
            errors=(FieldError(pointer, "invalid_value", str(error)),),
        ) from None
    if not settings.RUN_TASK_HOSTS.covers(target):
        raise RunTaskHostNotAllowed(
            "The call names a host that is not in ENFORCEMENT_RUN_TASK_HOSTS.",
            errors=(FieldError(pointer, "invalid_value", "names a host that is not allowed"),),
        )
