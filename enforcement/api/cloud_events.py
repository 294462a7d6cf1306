"""``POST gate/cloud-event``: CloudEvents in their three HTTP modes, and the webhook handshake."""

from __future__ import annotations

import re
from typing import Any, Final

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from enforcement.adapters import cloud_event, cloud_event_gate
from enforcement.adapters.cloud_event import Event
from enforcement.api.cloud_event_schema import (
    BATCH_SCHEMA,
    EVENT_SCHEMA,
    RESPONSE_SCHEMA,
)
from enforcement.api.gates import BATCH_LIMIT, KEY_HEADER, GateView, answer, ask_gate
from governance.api.assuming import confirming
from governance.api.callers import principal_of
from governance.api.throttling import gate_calls_per_minute
from valdrix.kernel.http.bodies import WholeBodyParser, parse_json
from valdrix.kernel.http.problem_response import problem_document
from valdrix.kernel.problems import FieldError, InvalidRequest, Refused

_JSON: Final = "application/json"
_SPEC_VERSION_HEADER: Final = "ce-specversion"
_ORIGIN: Final = re.compile(r"[A-Za-z0-9.*_-]{1,253}(?::[0-9]{1,5})?", re.ASCII)


class CloudEventGateView(GateView):
    """The gate for events, which is a webhook of CloudEvents at the same time."""

    parser_classes = (WholeBodyParser,)

    @extend_schema(
        operation_id="gate_cloud_event",
        summary="Decide the change that an event tells of; a batch is answered item by item.",
        description="Structured as `application/cloudevents+json`, batched as"
        " `application/cloudevents-batch+json`, or binary: attributes as `ce-` headers and the"
        " data, a gate body, as the body.",
        request={
            f"{cloud_event.MEDIA_TYPE}+json": EVENT_SCHEMA,
            f"{cloud_event.BATCH_MEDIA_TYPE}+json": BATCH_SCHEMA,
        },
        responses={(200, _JSON): RESPONSE_SCHEMA},
    )
    @confirming
    def post(self, request: Request) -> HttpResponse:
        """Decide the change of each event; the answer is 200 whatever the decision."""
        body = _whole_body(request)
        content_type = request.META.get("CONTENT_TYPE", "")
        mode = cloud_event.find_mode(
            content_type, has_attributes=_SPEC_VERSION_HEADER in request.headers
        )
        header_key = request.headers.get(KEY_HEADER)
        if mode == cloud_event.BATCHED:
            return answer({"results": _answer_batch(request, parse_json(body), header_key)})
        if mode == cloud_event.STRUCTURED:
            event = cloud_event.read_structured(parse_json(body))
        else:
            event = cloud_event.read_binary(request.headers, content_type, body)
        return answer(_ask(request, event, header_key=header_key))

    @extend_schema(
        operation_id="gate_cloud_event_handshake",
        summary="The webhook handshake: may a sender deliver events here?",
        parameters=[
            OpenApiParameter("WebHook-Request-Origin", str, OpenApiParameter.HEADER),
            OpenApiParameter("WebHook-Request-Rate", int, OpenApiParameter.HEADER),
        ],
        responses={204: None},
    )
    def options(  # type: ignore[override] # the framework calls it with its own request
        self, request: Request, *args: Any, **kwargs: Any
    ) -> Response:
        """Grant a sender with a credential what it asks; without an origin nothing is granted."""
        response = Response(status=204, headers={"Allow": "POST, OPTIONS"})
        origin = request.headers.get("WebHook-Request-Origin", "")
        if _ORIGIN.fullmatch(origin):
            response["WebHook-Allowed-Origin"] = origin
            response["WebHook-Allowed-Rate"] = str(_granted(request))
        return response


def _whole_body(request: Request) -> bytes:
    """Return the body; where there is none the framework has not asked the parser."""
    body: object = request.data
    return body if isinstance(body, bytes) else b""


def _granted(request: Request) -> int:
    """Return the rate that a sender may use, in requests a minute: what the tenant's gates take."""
    most = gate_calls_per_minute(str(principal_of(request).tenant_id))
    asked = request.headers.get("WebHook-Request-Rate", "")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and int(asked) > 0):
        return most
    return min(int(asked), most)


def _ask(
    request: Request, event: Event, *, header_key: str | None = None, pointer: str = ""
) -> dict[str, Any]:
    return ask_gate(
        request,
        cloud_event_gate.to_gate_request(
            event, actor=principal_of(request).principal_id, header_key=header_key, pointer=pointer
        ),
    )


def _answer_batch(
    request: Request, documents: object, header_key: str | None
) -> list[dict[str, Any]]:
    """Answer each event of a batch in its order; one event's refusal stops no other.

    :raises InvalidRequest: for what is no batch; nothing was decided then.
    """
    fault = None
    if not isinstance(documents, list):
        fault = FieldError("", "invalid_type", "must be a list of events")
    elif len(documents) > BATCH_LIMIT:
        fault = FieldError("", "out_of_range", f"must hold at most {BATCH_LIMIT} events")
    elif header_key is not None:
        fault = FieldError("", "invalid_value", "a batch takes its keys from its events")
    if fault is not None:
        raise InvalidRequest("The batch cannot be answered.", errors=(fault,))
    assert isinstance(documents, list)
    return [_answer_item(request, document) for document in documents]


def _answer_item(request: Request, document: object) -> dict[str, Any]:
    try:
        return {"status": 200, "body": _ask(request, cloud_event.read_structured(document))}
    except Refused as refusal:
        body = problem_document(refusal.problem_code, refusal.detail, errors=refusal.errors)
        return {"status": refusal.status, "body": body}
