"""A policy as typed values, with every default filled in on the strict side, and its questions.

Built by ``document.parse_policy`` only. It is encoded as JSON into a decision's stored context
and decoded from there when the decision is replayed, so that every type here survives that.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

import msgspec

from governance.policies.environments import NONPROD, Environment, NonprodNames
from valdrix.kernel.money import ZERO

SCHEMA_VERSION: Final = "valdrix.enforcement.policy.v1"

Source = Literal["terraform", "k8s_admission", "cloud_event"]
SOURCES: Final = ("terraform", "k8s_admission", "cloud_event")
Mode = Literal["shadow", "soft", "hard"]
MODES: Final = ("shadow", "soft", "hard")
"""From the laxest to the strictest."""
Verb = Literal["allow", "require_approval", "deny"]
VERBS: Final = ("deny", "require_approval", "allow")
RuleEffect = Literal["deny", "require_approval", "tag"]
RULE_EFFECTS: Final = ("deny", "require_approval", "tag")
FreezeEffect = Literal["deny", "require_approval"]
FREEZE_EFFECTS: Final = ("deny", "require_approval")
CreditUse = Literal["automatic", "approval"]
CREDIT_USES: Final = ("approval", "automatic")
DeclaredCosts = Literal["known", "unknown"]
DECLARED_COSTS: Final = ("known", "unknown")
Role = Literal["owner", "admin", "member"]
ROLES: Final = ("owner", "admin", "member")
RiskLevel = Literal["low", "medium", "high", "critical"]
RISK_LEVELS: Final = ("low", "medium", "high", "critical")
"""From the lowest to the highest."""

DEFAULT_REVIEWER_ROLES: Final[tuple[Role, ...]] = ("owner", "admin")
DEFAULT_PRICED_KINDS: Final = (
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Pod",
    "PersistentVolumeClaim",
    "Service",
)


class SourceModes(msgspec.Struct, frozen=True, kw_only=True):
    """Modes of one source; None where the document says nothing."""

    default: Mode | None = None
    prod: Mode | None = None
    nonprod: Mode | None = None


class ModeChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The mode of one request, and which part of the policy it came from."""

    mode: Mode
    scope: str


class Verbs(msgspec.Struct, frozen=True, kw_only=True):
    """What something means in each environment."""

    prod: Verb = "require_approval"
    nonprod: Verb = "allow"

    def of(self, environment: str) -> Verb:
        """Return the verb of an environment; what is not ``nonprod`` is prod."""
        return self.nonprod if environment == NONPROD else self.prod


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's ceilings on monthly exposure in US dollars; None leaves the tier's."""

    plan_monthly_ceiling_usd: Decimal | None = None
    enterprise_monthly_ceiling_usd: Decimal | None = None


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """From which monthly delta on a change needs approval, or is denied; both inclusive."""

    require_approval_from_usd: Decimal = ZERO
    deny_from_usd: Decimal | None = None

    def finding(self, monthly_delta_usd: Decimal) -> Verb:
        """Return what an amount means; no increase is never refused by a threshold."""
        if monthly_delta_usd <= 0:
            return "allow"
        if self.deny_from_usd is not None and monthly_delta_usd >= self.deny_from_usd:
            return "deny"
        return (
            "require_approval" if monthly_delta_usd >= self.require_approval_from_usd else "allow"
        )


class ApprovalTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a change is approved where no routing rule says otherwise.

    :ivar require_second_factor: whether approving takes a session that proved a second factor.
    """

    required: int = 1
    separate_requester: bool = True
    ttl_seconds: int = 86_400
    require_second_factor: bool = False


class RoutingRule(msgspec.Struct, frozen=True, kw_only=True):
    """Who reviews a change; each condition that is None or empty matches everything."""

    id: str
    environment: Environment | None = None
    action_prefix: str | None = None
    monthly_delta_from_usd: Decimal | None = None
    risk_levels: tuple[RiskLevel, ...] = ()
    reviewer_roles: tuple[Role, ...] = DEFAULT_REVIEWER_ROLES
    reviewer_groups_all: tuple[str, ...] = ()
    required: int | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A custom rule: what happens ``when`` its expression is true."""

    id: str
    when: str
    effect: RuleEffect
    message: str


class EmergencyCredits(msgspec.Struct, frozen=True, kw_only=True):
    """Whether emergency credits are used at once or need an approval."""

    prod: CreditUse = "approval"
    nonprod: CreditUse = "automatic"

    def of(self, environment: str) -> CreditUse:
        """Return the use in an environment; what is not ``nonprod`` is prod."""
        return self.nonprod if environment == NONPROD else self.prod


class Kubernetes(msgspec.Struct, frozen=True, kw_only=True):
    """What admission reads and prices.

    :ivar trust_object_annotations: an object's author may say its project and environment.
    :ivar declared_costs: what a cost that an object's author states is taken for.
    """

    trust_object_annotations: bool = False
    priced_kinds: tuple[str, ...] = DEFAULT_PRICED_KINDS
    declared_costs: DeclaredCosts = "known"

    @property
    def declared_costs_are_known(self) -> bool:
        """Tell whether what an object's author states of its cost is taken for it."""
        return self.declared_costs == "known"


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """A window in which nothing new is let through: from inclusive, to exclusive."""

    id: str
    from_at: datetime
    to_at: datetime
    environments: tuple[Environment, ...]
    effect: FreezeEffect = "deny"

    def is_active(self, *, environment: str, at: datetime) -> bool:
        """Tell whether the window covers an environment at a moment."""
        return environment in self.environments and self.from_at <= at < self.to_at


class PolicyException(msgspec.Struct, frozen=True, kw_only=True):
    """A time-boxed permission of one project, up to an amount: ends before ``until_at``."""

    id: str
    project_id: str
    environment: Environment | None
    until_at: datetime
    max_monthly_delta_usd: Decimal
    reason: str

    def covers(
        self, *, project_id: str, environment: str, monthly_delta_usd: Decimal, at: datetime
    ) -> bool:
        """Tell whether a change of known cost is inside the permission."""
        return (
            project_id == self.project_id
            and self.environment in (None, environment)
            and at < self.until_at
            and monthly_delta_usd <= self.max_monthly_delta_usd
        )


class ReservationTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long reservations live, and which drift is worth a person's look (either bound)."""

    sla_hours: int = 720
    admission_ttl_seconds: int = 900
    drift_threshold_usd: Decimal = ZERO
    drift_threshold_percent: Decimal = Decimal(0)


class ContextTerms(msgspec.Struct, frozen=True, kw_only=True):
    """When ingested costs count as stale, in days."""

    stale_cost_days: int = 3


class ActionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long actions are tried."""

    max_attempts: int = 3
    retry_backoff_seconds: int = 60
    lease_ttl_seconds: int = 300


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy document means, complete."""

    nonprod_names: NonprodNames
    modes: dict[str, SourceModes]
    unknown_cost: Verbs
    partial_cost: Verbs
    no_budget: Verbs
    limits: Limits
    threshold_prod: Threshold
    threshold_nonprod: Threshold
    approvals_prod: ApprovalTerms
    approvals_nonprod: ApprovalTerms
    routing_rules: tuple[RoutingRule, ...]
    rules: tuple[Rule, ...]
    emergency_credits: EmergencyCredits
    kubernetes: Kubernetes
    freezes: tuple[Freeze, ...]
    exceptions: tuple[PolicyException, ...]
    reservations: ReservationTerms
    context: ContextTerms
    actions: ActionTerms

    def classify_environment(self, text: str) -> Environment:
        """Return ``prod`` or ``nonprod`` for a caller's own words (SPEC 2)."""
        return self.nonprod_names.classify(text)

    def mode(self, source: str, environment: str) -> ModeChoice:
        """Return the mode of a source in an environment; ``hard`` where nothing is said."""
        chosen = self.modes.get(source, _SILENT)
        side = chosen.nonprod if environment == NONPROD else chosen.prod
        if side is not None:
            name = NONPROD if environment == NONPROD else "prod"
            return ModeChoice(mode=side, scope=f"{source}.{name}")
        if chosen.default is not None:
            return ModeChoice(mode=chosen.default, scope=f"{source}.default")
        return ModeChoice(mode="hard", scope="builtin.default")

    def cost_verb(self, cost_state: str, environment: str) -> Verb:
        """Return what a cost state means; a state that is not known or partial is unknown."""
        if cost_state == "known":
            return "allow"
        verbs = self.partial_cost if cost_state == "partial" else self.unknown_cost
        return verbs.of(environment)

    def threshold(self, environment: str) -> Threshold:
        """Return the thresholds of an environment."""
        return self.threshold_nonprod if environment == NONPROD else self.threshold_prod

    def approval_terms(self, environment: str) -> ApprovalTerms:
        """Return how approvals work in an environment."""
        return self.approvals_nonprod if environment == NONPROD else self.approvals_prod

    def active_freezes(self, *, environment: str, at: datetime) -> tuple[Freeze, ...]:
        """Return the freeze windows that cover an environment at a moment, in document order."""
        return tuple(
            freeze for freeze in self.freezes if freeze.is_active(environment=environment, at=at)
        )

    def find_exception(
        self, *, project_id: str, environment: str, monthly_delta_usd: Decimal, at: datetime
    ) -> PolicyException | None:
        """Return the first exception that covers a change of known cost, if there is one."""
        for exception in self.exceptions:
            if exception.covers(
                project_id=project_id,
                environment=environment,
                monthly_delta_usd=monthly_delta_usd,
                at=at,
            ):
                return exception
        return None


_SILENT: Final = SourceModes()
