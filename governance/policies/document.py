"""The policy document: what is wrong with one, what it means, and the bytes it is known by."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from typing import Final

import msgspec

from governance.policies import domain
from governance.policies.domain import (
    ActionTerms,
    ApprovalTerms,
    ContextTerms,
    EmergencyCredits,
    Freeze,
    Kubernetes,
    Limits,
    Policy,
    PolicyException,
    ReservationTerms,
    RoutingRule,
    Rule,
    SourceModes,
    Threshold,
    Verbs,
)
from governance.policies.environments import (
    DEFAULT_NONPROD,
    ENVIRONMENTS,
    build_nonprod_names,
    find_fault,
)
from governance.policies.expressions import MAX_LENGTH, ExpressionError, compile_expression
from governance.policies.section import Section
from valdrix.kernel.canonical import canonical_bytes
from valdrix.kernel.money import ZERO
from valdrix.kernel.problems import FieldError, Refused
from valdrix.kernel.structs import converter

KIND_PATTERN: Final = r"[A-Z][A-Za-z0-9]{0,62}"
PERCENT_PATTERN: Final = r"(?:0|[1-9][0-9]{0,3})(?:\.[0-9]{1,2})?"

MAX_TEXT: Final = 200
MAX_MESSAGE: Final = 500
MAX_NONPROD: Final = 100
MAX_ROUTING_RULES: Final = 100
MAX_RULES: Final = 100
MAX_FREEZES: Final = 200
MAX_EXCEPTIONS: Final = 500
MAX_GROUPS: Final = 10
MAX_KINDS: Final = 50

REQUIRED_APPROVALS: Final = (1, 5)
TTL_SECONDS: Final = (60, 2_592_000)
SLA_HOURS: Final = (1, 8_760)
ADMISSION_TTL_SECONDS: Final = (60, 86_400)
STALE_COST_DAYS: Final = (1, 60)
MAX_ATTEMPTS: Final = (1, 20)
RETRY_BACKOFF_SECONDS: Final = (1, 86_400)
LEASE_TTL_SECONDS: Final = (10, 86_400)

_KIND: Final = re.compile(KIND_PATTERN, re.ASCII)
_PERCENT: Final = re.compile(PERCENT_PATTERN, re.ASCII)

_make_modes: Final = converter(SourceModes)
_make_verbs: Final = converter(Verbs)
_make_routing_rule: Final = converter(RoutingRule)
_make_rule: Final = converter(Rule)
_make_emergency_credits: Final = converter(EmergencyCredits)
_make_freeze: Final = converter(Freeze)
_make_exception: Final = converter(PolicyException)


class InvalidPolicy(Refused):
    """A policy document has errors and is never published (422)."""

    code = "invalid_policy"


class CanonicalPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a document that is stored, and the SHA-256 of that text."""

    canonical_json: str
    sha256: str


def lint(document: object) -> tuple[FieldError, ...]:
    """Return everything that is wrong with a document, each with its JSON pointer."""
    return _read(document)[1]


def parse_policy(document: object) -> Policy:
    """Return what a document means, every default filled in on the strict side.

    :raises InvalidPolicy: with everything that ``lint`` finds.
    """
    policy, errors = _read(document)
    if errors:
        raise InvalidPolicy("The policy document has errors.", errors=errors)
    return policy


def empty_policy() -> Policy:
    """Return the policy of an empty document: the strictest there is."""
    return parse_policy({})


def canonical_policy(document: object) -> CanonicalPolicy:
    """Return the canonical form (RFC 8785) of a document, and its SHA-256.

    :raises InvalidPolicy: with everything that ``lint`` finds.
    """
    parse_policy(document)
    canonical = canonical_bytes(document)
    return CanonicalPolicy(
        canonical_json=canonical.decode(), sha256=hashlib.sha256(canonical).hexdigest()
    )


def _read(document: object) -> tuple[Policy, tuple[FieldError, ...]]:
    root = Section(document)
    root.choice("schema_version", (domain.SCHEMA_VERSION,))
    unknown_cost = _read_verbs(root, "unknown_cost", otherwise=Verbs())
    threshold_prod, threshold_nonprod = _read_thresholds(root)
    approvals_prod, approvals_nonprod = _read_approvals(root)
    policy = Policy(
        nonprod_names=build_nonprod_names(_read_nonprod(root)),
        modes=_read_modes(root),
        unknown_cost=unknown_cost,
        partial_cost=_read_verbs(root, "partial_cost", otherwise=unknown_cost),
        no_budget=_read_verbs(root, "no_budget", otherwise=Verbs()),
        limits=_read_limits(root),
        threshold_prod=threshold_prod,
        threshold_nonprod=threshold_nonprod,
        approvals_prod=approvals_prod,
        approvals_nonprod=approvals_nonprod,
        routing_rules=root.objects(
            "approval_routing_rules", _read_routing_rule, most=MAX_ROUTING_RULES
        ),
        rules=root.objects("rules", _read_rule, most=MAX_RULES),
        emergency_credits=_read_emergency_credits(root),
        kubernetes=_read_kubernetes(root),
        freezes=root.objects("freezes", _read_freeze, most=MAX_FREEZES),
        exceptions=root.objects("exceptions", _read_exception, most=MAX_EXCEPTIONS),
        reservations=_read_reservations(root),
        context=_read_context(root),
        actions=_read_actions(root),
    )
    root.refuse_unknown()
    return policy, tuple(root.errors)


def _read_nonprod(root: Section) -> tuple[str, ...]:
    section = root.section("environments")
    patterns = section.strings("nonprod", bounds=(0, MAX_NONPROD), find_fault=find_fault)
    root.absorb(section)
    return DEFAULT_NONPROD if patterns is None else patterns


def _read_modes(root: Section) -> dict[str, SourceModes]:
    section = root.section("modes")
    modes = {}
    for source in domain.SOURCES:
        if section.has(source):
            inner = section.section(source)
            values = {name: inner.choice(name, domain.MODES) for name in ("default", *ENVIRONMENTS)}
            modes[source] = _make_modes(values)
            section.absorb(inner)
    root.absorb(section)
    return modes


def _read_verbs(root: Section, name: str, *, otherwise: Verbs) -> Verbs:
    section = root.section(name)
    values = {
        side: section.choice(side, domain.VERBS) or otherwise.of(side) for side in ENVIRONMENTS
    }
    root.absorb(section)
    return _make_verbs(values)


def _read_limits(root: Section) -> Limits:
    section = root.section("limits")
    plan = section.usd("plan_monthly_ceiling_usd")
    enterprise = section.usd("enterprise_monthly_ceiling_usd")
    if plan is not None and enterprise is not None and plan > enterprise:
        section.refuse(
            "plan_monthly_ceiling_usd",
            "must not be above enterprise_monthly_ceiling_usd",
            code="contradiction",
        )
    root.absorb(section)
    return Limits(plan_monthly_ceiling_usd=plan, enterprise_monthly_ceiling_usd=enterprise)


def _read_thresholds(root: Section) -> tuple[Threshold, Threshold]:
    section = root.section("thresholds")
    prod, nonprod = (_read_threshold(section, side) for side in ENVIRONMENTS)
    root.absorb(section)
    return prod, nonprod


def _read_threshold(section: Section, side: str) -> Threshold:
    inner = section.section(side)
    approve = inner.usd("require_approval_from_usd")
    deny = inner.usd("deny_from_usd")
    if approve is not None and deny is not None and deny < approve:
        inner.refuse(
            "deny_from_usd", "must not be below require_approval_from_usd", code="contradiction"
        )
    section.absorb(inner)
    return Threshold(
        require_approval_from_usd=ZERO if approve is None else approve, deny_from_usd=deny
    )


def _read_approvals(root: Section) -> tuple[ApprovalTerms, ApprovalTerms]:
    section = root.section("approvals")
    prod = _read_terms(section, "prod", separate_requester=True)
    nonprod = _read_terms(section, "nonprod", separate_requester=False)
    root.absorb(section)
    return prod, nonprod


def _read_terms(section: Section, side: str, *, separate_requester: bool) -> ApprovalTerms:
    inner = section.section(side)
    terms = ApprovalTerms(
        required=inner.whole("required", REQUIRED_APPROVALS, default=1),
        separate_requester=inner.boolean("separate_requester", default=separate_requester),
        ttl_seconds=inner.whole("ttl_seconds", TTL_SECONDS, default=86_400),
        require_second_factor=inner.boolean("require_second_factor", default=False),
    )
    section.absorb(inner)
    return terms


def _read_routing_rule(entry: Section, identifier: str) -> RoutingRule | None:
    roles = entry.strings("reviewer_roles", bounds=(1, 3), choices=domain.ROLES)
    low, high = REQUIRED_APPROVALS
    values = {
        "id": identifier,
        "environment": entry.choice("environment", ENVIRONMENTS),
        "action_prefix": entry.text("action_prefix"),
        "monthly_delta_from_usd": entry.usd("monthly_delta_from_usd"),
        "risk_levels": entry.strings("risk_levels", bounds=(1, 4), choices=domain.RISK_LEVELS)
        or (),
        "reviewer_roles": roles or domain.DEFAULT_REVIEWER_ROLES,
        "reviewer_groups_all": entry.strings("reviewer_groups_all", bounds=(0, MAX_GROUPS)) or (),
        "required": entry.integer("required", minimum=low, maximum=high),
    }
    return _make_routing_rule(values) if identifier else None


def _read_rule(entry: Section, identifier: str) -> Rule | None:
    when = entry.prose("when", required=True, max_length=MAX_LENGTH)
    effect = entry.choice("effect", domain.RULE_EFFECTS, required=True)
    message = entry.prose("message", max_length=MAX_MESSAGE)
    if when is not None:
        try:
            compile_expression(when)
        except ExpressionError as error:
            entry.refuse("when", str(error), code=error.code)
    if not identifier or when is None or effect is None:
        return None
    values = {
        "id": identifier,
        "when": when,
        "effect": effect,
        "message": message or f"Rule {identifier} applies.",
    }
    return _make_rule(values)


def _read_emergency_credits(root: Section) -> EmergencyCredits:
    section = root.section("credits")
    inner = section.section("emergency")
    values = {
        side: inner.choice(side, domain.CREDIT_USES) or EmergencyCredits().of(side)
        for side in ENVIRONMENTS
    }
    section.absorb(inner)
    root.absorb(section)
    return _make_emergency_credits(values)


def _read_kubernetes(root: Section) -> Kubernetes:
    section = root.section("k8s")
    trusts = section.boolean("trust_object_annotations", default=False)
    kinds = section.strings("priced_kinds", bounds=(0, MAX_KINDS), find_fault=_find_kind_fault)
    declared = section.choice("declared_costs", domain.DECLARED_COSTS)
    root.absorb(section)
    return Kubernetes(
        trust_object_annotations=trusts,
        priced_kinds=domain.DEFAULT_PRICED_KINDS if kinds is None else kinds,
        declared_costs="unknown" if declared == "unknown" else "known",
    )


def _find_kind_fault(kind: str) -> str | None:
    return None if _KIND.fullmatch(kind) else "must be a kind such as Deployment"


def _read_freeze(entry: Section, identifier: str) -> Freeze | None:
    from_at, to_at = entry.time("from", required=True), entry.time("to", required=True)
    sides = entry.strings("environments", bounds=(1, 2), choices=ENVIRONMENTS)
    effect = entry.choice("effect", domain.FREEZE_EFFECTS) or "deny"
    if from_at is None or to_at is None:
        return None
    if from_at >= to_at:
        entry.refuse("to", "must be later than from", code="contradiction")
    values = {
        "id": identifier,
        "from_at": from_at,
        "to_at": to_at,
        "environments": sides or ENVIRONMENTS,
        "effect": effect,
    }
    return _make_freeze(values) if identifier else None


def _read_exception(entry: Section, identifier: str) -> PolicyException | None:
    project_id = entry.text("project_id", required=True)
    environment = entry.choice("environment", ENVIRONMENTS)
    until_at = entry.time("until", required=True)
    most = entry.usd("max_monthly_delta_usd", required=True)
    reason = entry.prose("reason", required=True, max_length=MAX_MESSAGE)
    if not identifier or project_id is None or until_at is None or most is None or reason is None:
        return None
    values = {
        "id": identifier,
        "project_id": project_id,
        "environment": environment,
        "until_at": until_at,
        "max_monthly_delta_usd": most,
        "reason": reason,
    }
    return _make_exception(values)


def _read_reservations(root: Section) -> ReservationTerms:
    section = root.section("reservations")
    percent = section.text("drift_threshold_percent", pattern=_PERCENT)
    terms = ReservationTerms(
        sla_hours=section.whole("sla_hours", SLA_HOURS, default=720),
        admission_ttl_seconds=section.whole(
            "admission_ttl_seconds", ADMISSION_TTL_SECONDS, default=900
        ),
        drift_threshold_usd=section.usd("drift_threshold_usd") or ZERO,
        drift_threshold_percent=Decimal(percent or 0),
    )
    root.absorb(section)
    return terms


def _read_context(root: Section) -> ContextTerms:
    section = root.section("context")
    terms = ContextTerms(
        stale_cost_days=section.whole("stale_cost_days", STALE_COST_DAYS, default=3)
    )
    root.absorb(section)
    return terms


def _read_actions(root: Section) -> ActionTerms:
    section = root.section("actions")
    terms = ActionTerms(
        max_attempts=section.whole("max_attempts", MAX_ATTEMPTS, default=3),
        retry_backoff_seconds=section.whole(
            "retry_backoff_seconds", RETRY_BACKOFF_SECONDS, default=60
        ),
        lease_ttl_seconds=section.whole("lease_ttl_seconds", LEASE_TTL_SECONDS, default=300),
    )
    root.absorb(section)
    return terms
