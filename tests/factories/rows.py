"""One row in every table of a tenant, for tests that go through all of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.apps import apps
from django.db import connection, models

from billing.accounts.domain import GRANT
from billing.models import (
    Account,
    AccountMonth,
    BudgetAlert,
    Charge,
    CostIngestion,
    CostUnit,
    DailyCost,
    QuotaCount,
    QuotaReservation,
    Reservation,
    ReservationLine,
    SettlementRecord,
    SubAccountProject,
    Subscription,
)
from billing.plans.domain import ENTERPRISE
from billing.reservations.models import TRIGGERS
from enforcement.adapters.run_task import RunTaskCall
from enforcement.ledger.domain import DECISION_MADE, EntryFacts
from enforcement.ledger.operations import append
from enforcement.models import (
    Decision,
    Delivery,
    IdempotencyKey,
    Notice,
    NoticeCursor,
    Promotion,
    RunTask,
    Simulation,
)
from enforcement.run_tasks.operations import encode_call
from governance.models import (
    Approval,
    ApprovalPermission,
    ApprovalToken,
    AuditEntry,
    ClusterBinding,
    ForcedMode,
    Incident,
    Integration,
    PolicyVersion,
    Review,
    ReviewerGroup,
    ReviewerGroupMember,
    Tenant,
    WorkloadIssuer,
)
from tests.factories.tenants import World
from valdrix.kernel.db import transaction
from valdrix.kernel.ids import new_id

DIGEST = "ab" * 32


def tenant_models() -> list[type[models.Model]]:
    """Return every model whose rows belong to one tenant, the tenant itself included."""
    return [model for model in apps.get_models() if tenant_column(model) is not None]


def models_of_truth() -> list[type[models.Model]]:
    """Return the models of tenants that the application's role may read: telemetry's are not."""
    return [model for model in tenant_models() if model._meta.app_label != "telemetry"]


def tenant_column(model: type[models.Model]) -> str | None:
    """Return the column that names a row's tenant, or None for tables that belong to none."""
    if model is Tenant:
        return "id"
    columns = {field.column for field in model._meta.local_concrete_fields}
    return "tenant_id" if "tenant_id" in columns else None


def plant_rows(world: World) -> None:
    """Commit at least one row in every table of a tenant."""
    now = datetime.now(UTC)
    decision_id = new_id()
    with transaction(world.id):
        _plant_governance(world.id, decision_id, now)
        _plant_incident(world.id, now)
        _plant_integrations(world, now)
        _plant_reviewers(world, now)
        _plant_workload_issuer(world, now)
        _plant_money(world.id, decision_id, now)
        plant_decision(world.id, decision_id, now)
        IdempotencyKey.objects.create(
            tenant_id=world.id,
            source="terraform",
            stored_key=f"key of {decision_id}",
            request_fingerprint=DIGEST,
            decision_id=decision_id,
            claimed_at=now,
        )
        _plant_proof(world.id, now)
        _plant_notice(world.id, decision_id, now)
        append(tenant_id=world.id, facts=[build_facts(decision_id)])
        _plant_run_task(world, decision_id, now)


def _plant_proof(tenant_id: uuid.UUID, now: datetime) -> None:
    Simulation.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        status="done",
        document_json="{}",
        policy_sha256=DIGEST,
        start_at=now - timedelta(days=1),
        end_at=now,
        requested_by="user:1",
        requested_at=now,
    )
    Promotion.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        source="terraform",
        environment="prod",
        from_mode="shadow",
        to_mode="soft",
        state="withdrawn",
        figures_json="{}",
        proposed_by="user:1",
        proposer_person_id=1,
        proposed_at=now,
        expires_at=now + timedelta(days=7),
    )


def build_facts(decision_id: uuid.UUID | None = None, **changes: object) -> EntryFacts:
    """Build what a plain ledger entry states."""
    facts = {
        "event": DECISION_MADE,
        "at": datetime.now(UTC),
        "principal": "user:1",
        "project_id": "shop",
        "decision_id": decision_id or new_id(),
        "reason_codes": ("within_budget",),
    }
    return EntryFacts(**(facts | changes))


def append_entries(tenant_id: uuid.UUID, facts: Sequence[EntryFacts]) -> None:
    """Commit ledger entries, one transaction each, as decisions do."""
    for fact in facts:
        with transaction(tenant_id):
            append(tenant_id=tenant_id, facts=[fact])


def plant_decision(tenant_id: uuid.UUID, decision_id: uuid.UUID, now: datetime) -> Decision:
    """Insert a decision, inside a transaction of its tenant."""
    return Decision.objects.create(
        id=decision_id,
        tenant_id=tenant_id,
        created_at=now,
        source="terraform",
        project_id="shop",
        environment="prod",
        action="terraform.apply",
        resource_reference="module.web",
        decision="ALLOW",
        mode="hard",
        reason_codes=["within_budget"],
        cost_state="known",
        request_fingerprint=DIGEST,
        change_fingerprint=DIGEST,
        actor="user:1",
        person_id=1,
        policy_version=1,
        policy_document_schema_version="valdrix.enforcement.policy.v1",
        policy_document_sha256=DIGEST,
        engine_version="1",
        context_json="{}",
        outcome_json="{}",
        outcome_sha256=DIGEST,
        response_json="{}",
    )


def _plant_governance(tenant_id: uuid.UUID, decision_id: uuid.UUID, now: datetime) -> None:
    AuditEntry.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        at=now,
        actor="user:1",
        action="budget.create",
        object_type="budget",
        object_id=str(decision_id),
        after={"monthly_limit_usd": "10.00"},
    )
    PolicyVersion.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        number=PolicyVersion.objects.filter(tenant_id=tenant_id).count() + 1,
        schema_version="valdrix.enforcement.policy.v1",
        canonical_json="{}",
        sha256=DIGEST,
        author="user:1",
        published_at=now,
    )
    ForcedMode.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        source="terraform",
        environment="prod",
        mode="shadow",
        reason="the price service answers nonsense",
        forced_by="user:1",
        forced_at=now,
        until_at=now + timedelta(hours=1),
    )
    approval = Approval.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        decision_id=decision_id,
        source="terraform",
        project_id="shop",
        environment="prod",
        action="terraform.apply",
        change_fingerprint=DIGEST,
        change_is_computed=False,
        requested_by="user:1",
        requester_person_id=1,
        required=1,
        reviewer_roles=["owner"],
        separate_requester=True,
        requested_at=now,
        expires_at=now + timedelta(days=1),
    )

    ApprovalToken.objects.create(
        jti=new_id(),
        tenant_id=tenant_id,
        approval=approval,
        kid="planted",
        claims_json="{}",
        issued_to="user:1",
        issued_at=now,
        expires_at=now + timedelta(days=1),
    )
    Review.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        approval=approval,
        round=1,
        verdict="approve",
        person_id=1,
        principal_id="user:1",
        reviewed_at=now,
    )


def _plant_reviewers(world: World, now: datetime) -> None:
    person = {"tenant_id": world.id, "user_id": world.member.user_id}
    group = ReviewerGroup.objects.create(
        id=new_id(),
        tenant_id=world.id,
        name=f"finance {new_id()}",
        created_by="user:1",
        created_at=now,
    )
    ReviewerGroupMember.objects.create(**person, group=group, added_at=now)
    ApprovalPermission.objects.get_or_create(
        **person, permission="enforcement.approve.prod", defaults={"granted_at": now}
    )


def _plant_notice(tenant_id: uuid.UUID, decision_id: uuid.UUID, now: datetime) -> None:
    NoticeCursor.objects.get_or_create(tenant_id=tenant_id, defaults={"sequence": 0})
    notice = Notice.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        kind="approval.requested",
        key=f"test:{decision_id}",
        subject_id=decision_id,
        facts={"project_id": "shop"},
        created_at=now,
    )
    Delivery.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        notice=notice,
        channel="email",
        destination="somebody@x.test",
        next_at=now + timedelta(days=365),
        created_at=now,
    )


def _plant_incident(tenant_id: uuid.UUID, now: datetime) -> None:
    Incident.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        kind="kept_total_differs",
        subject="account",
        detail="{}",
        opened_at=now,
        last_seen_at=now,
    )


def _plant_integrations(world: World, now: datetime) -> None:
    integration_id = new_id()
    Integration.objects.create(
        id=integration_id,
        tenant_id=world.id,
        kind="run_task",
        name=f"run task {integration_id}",
        sealed_secret=b"sealed",
        person_id=world.owner.user_id,
        created_by="user:1",
        created_at=now,
    )
    ClusterBinding.objects.create(
        id=new_id(),
        tenant_id=world.id,
        integration_id=integration_id,
        namespace="shop-dev",
        project_id="shop",
        environment="dev",
        created_by="user:1",
        created_at=now,
    )


def _plant_run_task(world: World, decision_id: uuid.UUID, now: datetime) -> None:
    RunTask.objects.create(
        id=new_id(),
        tenant_id=world.id,
        integration_id=new_id(),
        task_result_id=f"taskrs-{decision_id}",
        run_id="run-1",
        stage="post_plan",
        call_json=encode_call(build_run_task_call()),
        person_id=world.owner.user_id,
        state="reported",
        decision_id=decision_id,
        received_at=now,
        due_at=now,
        finished_at=now,
    )


def build_run_task_call(**changes: Any) -> RunTaskCall:
    """Return a call of the platform after planning."""
    values: dict[str, Any] = {
        "stage": "post_plan",
        "run_id": "run-1",
        "task_result_id": "taskrs-1",
        "organization_name": "acme",
        "workspace_name": "shop-dev",
        "is_speculative": False,
        "wants_outcomes": True,
        "callback_url": "https://app.terraform.io/api/v2/task-results/taskrs-1/callback",
        "access_token": "",
        "plan_url": None,
    }
    return RunTaskCall(**(values | changes))


def _plant_workload_issuer(world: World, now: datetime) -> None:
    WorkloadIssuer.objects.create(
        id=new_id(),
        tenant_id=world.id,
        name="ci",
        issuer="https://token.actions.githubusercontent.com",
        conditions={"repository_id": ["1"]},
        project_id="shop",
        person_id=world.owner.user_id,
        created_by="user:1",
        created_at=now,
    )


def _plant_money(tenant_id: uuid.UUID, decision_id: uuid.UUID, now: datetime) -> None:
    month = date(now.year, now.month, 1)
    Subscription.objects.update_or_create(
        tenant_id=tenant_id, defaults={"tier": ENTERPRISE, "since_at": now}
    )
    _plant_costs(tenant_id, now)
    account = Account.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        kind=GRANT,
        pool="reserved",
        monthly_limit_usd=None,
        total_usd=100,
        remaining_usd=100,
        created_at=now,
        created_by="user:1",
    )
    AccountMonth.objects.create(account=account, tenant_id=tenant_id, month=month)
    BudgetAlert.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        account=account,
        project_id="shop",
        month=month,
        level_percent=50,
        used_usd=60,
        limit_usd=100,
        raised_at=now,
    )
    _plant_quotas(tenant_id, now)
    charge = Charge.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        family_id=decision_id,
        is_shadow=False,
        project_id="shop",
        environment="prod",
        action="terraform.apply",
        resource_reference="module.web",
        change_fingerprint=DIGEST,
        change_is_computed=False,
        held_usd=5,
        own_usd=5,
        taken_usd=0,
        opened_at=now,
    )
    reservation = Reservation.objects.create(
        decision_id=decision_id,
        tenant_id=tenant_id,
        charge=charge,
        own_usd=5,
        taken_usd=0,
        month=month,
        reserved_at=now,
        due_at=now + timedelta(hours=720),
    )
    ReservationLine.objects.create(
        reservation=reservation,
        tenant_id=tenant_id,
        account=account,
        kind="reserved_credit",
        is_shadow=False,
        position=0,
        amount_usd=5,
        month=month,
    )
    SettlementRecord.objects.create(
        id=new_id(),
        tenant_id=tenant_id,
        family_id=decision_id,
        decision_id=decision_id,
        project_id="shop",
        environment="prod",
        trigger=TRIGGERS[0],
        reserved_usd=5,
        actual_usd=5,
        posted_usd=5,
        overrun_usd=0,
        drift_usd=0,
        settled_by="user:1",
        settled_at=now,
        result_json="{}",
    )


def _plant_quotas(tenant_id: uuid.UUID, now: datetime) -> None:
    quota = {"tenant_id": tenant_id, "meter": "llm_tokens", "day": now.date()}
    for holder in ("system", "tenant"):
        QuotaCount.objects.create(**quota, holder=holder, reserved_units=10)
    QuotaReservation.objects.create(
        **quota,
        id=new_id(),
        holder="system",
        principal_id="system:test",
        provider="economy",
        units=10,
        reserved_at=now,
        expires_at=now,
    )


def _plant_costs(tenant_id: uuid.UUID, now: datetime) -> None:
    day = {
        "tenant_id": tenant_id,
        "project_id": "shop",
        "date": now.date(),
        "amount_usd": 3,
        "is_final": True,
        "ingested_at": now,
    }
    DailyCost.objects.create(**day)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT billing_keep_cost_history(%s, %s, %s)", [tenant_id, ["shop"], [now.date()]]
        )
    file_id = new_id()
    CostUnit.objects.create(
        **day,
        provider="AWS",
        billing_account_id="1234",
        charge_count=1,
        ingestion_id=file_id,
    )
    CostIngestion.objects.create(
        id=file_id,
        tenant_id=tenant_id,
        content_sha256=f"{file_id.int:064x}",
        file_format="focus",
        size_bytes=100,
        row_count=1,
        unit_count=1,
        first_date=now.date(),
        last_date=now.date(),
        total_usd=3,
        ingested_at=now,
        ingested_by="user:1",
    )
    SubAccountProject.objects.create(
        tenant_id=tenant_id, sub_account_id=str(file_id), project_id="shop"
    )
