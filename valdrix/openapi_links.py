"""Links: which call's answer names what another call asks for (OpenAPI 3.1, Link Object).

They say in the description how calls follow one another: a decision, its approval, the token, what
was spent. Expressions are OpenAPI's runtime expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_SOME_MEMBERS: Final = "Members of the body; what else it needs is the caller's to say."


@dataclass(frozen=True)
class Link:
    """From an answer to a call.

    :ivar parameters: of the next call, each by an expression.
    :ivar body: members of the next call's body, each by an expression.
    """

    target: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the Link Object."""
        document: dict[str, Any] = {"operationId": self.target}
        if self.parameters:
            document["parameters"] = dict(self.parameters)
        if self.body:
            document["requestBody"] = dict(self.body)
            document["description"] = _SOME_MEMBERS
        return document


def _to(target: str, **parameters: str) -> Link:
    return Link(target, parameters)


def _to_each(targets: str, **parameters: str) -> tuple[Link, ...]:
    return tuple(Link(target, parameters) for target in targets.split())


_FIRST: Final = "$response.body#/results/0/id"
_DECISION: Final = "$response.body#/decision_id"
_ITS_APPROVAL: Final = "$response.body#/approval_request_id"
_ID: Final = "$response.body#/id"

_OF_A_DECISION: Final = (
    *_to_each("get_decision confirm_reservation reconcile_reservation", decision_id=_DECISION),
    _to("list_ledger_entries", decision_id=_DECISION),
)
_OF_A_GATE: Final = (
    *_OF_A_DECISION,
    _to("list_decisions", project="$response.body#/project_id"),
    *_to_each("get_approval approve deny withdraw", approval_id=_ITS_APPROVAL),
)
_OF_AN_APPROVAL: Final = (
    *_to_each("approve deny withdraw", approval_id=_ID),
    _to("get_decision", decision_id=_DECISION),
)
_VERSION: Final = "$response.body#/policy_version"
_OF_A_POLICY: Final = (
    _to("get_policy_version", number=_VERSION),
    Link("publish_policy", body={"base_version": _VERSION}),
    Link("roll_back_policy", {"number": _VERSION}, {"base_version": _VERSION}),
)

LINKS: Final[Mapping[str, tuple[Link, ...]]] = {
    "gate_terraform": _OF_A_GATE,
    "gate_terraform_preflight": _OF_A_GATE,
    "gate_k8s_admission": _OF_A_GATE,
    "get_approval": (
        *_OF_AN_APPROVAL,
        _to("claim_approval_token", approval_id=_ID),
        Link("request_approval", body={"decision_id": _DECISION}),
    ),
    "request_approval": _OF_AN_APPROVAL,
    "list_approvals": _to_each("get_approval", approval_id=_FIRST),
    "list_approval_queue": _to_each("get_approval approve deny", approval_id=_FIRST),
    "list_decisions": _to_each("get_decision", decision_id="$response.body#/results/0/decision_id"),
    "list_budgets": _to_each("get_budget", budget_id=_FIRST),
    "list_credits": _to_each("get_credit", grant_id=_FIRST),
    "list_integrations": _to_each("get_integration", integration_id=_FIRST),
    "list_workload_issuers": _to_each("get_workload_issuer", issuer_id=_FIRST),
    "list_active_reservations": _to_each(
        "get_decision", decision_id="$response.body#/results/0/decision_id"
    ),
    "approve": _to_each(
        "get_approval claim_approval_token withdraw", approval_id="$request.path.approval_id"
    ),
    "deny": _to_each("get_approval", approval_id="$request.path.approval_id"),
    "withdraw": _to_each("get_approval", approval_id="$request.path.approval_id"),
    "claim_approval_token": (
        Link("consume_approval_token", body={"approval_token": "$response.body#/approval_token"}),
    ),
    "consume_approval_token": (
        *_OF_A_DECISION,
        _to("get_approval", approval_id="$response.body#/approval_id"),
    ),
    "confirm_reservation": _to_each(
        "get_decision reconcile_reservation", decision_id="$request.path.decision_id"
    ),
    "reconcile_reservation": (_to("list_ledger_entries", decision_id="$request.path.decision_id"),),
    "create_budget": _to_each("get_budget change_budget", budget_id=_ID),
    "grant_credit": _to_each("get_credit void_credit", grant_id=_ID),
    "issue_api_key": _to_each("get_api_key rotate_api_key revoke_api_key", key_id=_ID),
    "rotate_api_key": _to_each("get_api_key revoke_api_key", key_id=_ID),
    "create_integration": _to_each(
        "get_integration list_namespace_bindings bind_namespace gate_k8s_cluster_review"
        " rotate_integration revoke_integration",
        integration_id=_ID,
    ),
    "bind_namespace": _to_each(
        "rebind_namespace unbind_namespace",
        integration_id="$response.body#/integration_id",
        binding_id=_ID,
    ),
    "register_workload_issuer": _to_each(
        "get_workload_issuer replace_workload_issuer_keys revoke_workload_issuer", issuer_id=_ID
    ),
    "create_reviewer_group": _to_each(
        "set_reviewer_group_members delete_reviewer_group", group_id=_ID
    ),
    "admit_member": _to_each(
        "change_role set_approval_permissions remove_member",
        person_id="$response.body#/person_id",
    ),
    "get_policy": _OF_A_POLICY,
    "publish_policy": _OF_A_POLICY,
    "roll_back_policy": (_to("get_policy_version", number=_VERSION),),
    "simulate_policy": _to_each("get_simulation", simulation_id=_ID),
}
"""From each operation's successful answers to what they lead to."""


def describe_links(schema: dict[str, Any]) -> None:
    """Add the links to the successful answers of their operations."""
    for path in schema["paths"].values():
        for operation in path.values():
            links = LINKS.get(operation["operationId"], ())
            for status, response in operation["responses"].items():
                if links and status.startswith("2"):
                    response["links"] = {link.target: link.to_document() for link in links}
