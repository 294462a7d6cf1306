"""Routes of the gate and of what governs it, below ``/api/v1/enforcement/``."""

from __future__ import annotations

from django.urls import URLPattern, path

from enforcement.api.admission import AdmissionReviewView, AdmissionView, ClusterReviewView
from enforcement.api.approvals import (
    ApprovalQueueView,
    ApprovalRequestsView,
    ApprovalsView,
    ApprovalView,
    ApproveView,
    ConsumeView,
    DenyView,
    TokenView,
    WithdrawView,
)
from enforcement.api.budgets import BudgetsView, BudgetView
from enforcement.api.cloud_events import CloudEventGateView
from enforcement.api.costs import CostSummaryView, CostsView, SubAccountsView
from enforcement.api.credits import CreditsView, CreditView, CreditVoidView
from enforcement.api.decisions import DecisionsView, DecisionView
from enforcement.api.exports import ExportArchiveView, ExportParityView
from enforcement.api.gates import BatchGateView, TerraformGateView, TerraformPreflightView
from enforcement.api.ledger import CheckpointView, LedgerView
from enforcement.api.modes import EmergencyModeView
from enforcement.api.policies import (
    PolicyDiffView,
    PolicyLintView,
    PolicyRollbackView,
    PolicySchemaView,
    PolicyVersionsView,
    PolicyVersionView,
    PolicyView,
)
from enforcement.api.reservations import (
    ActiveReservationsView,
    ConfirmView,
    ReconcileOverdueView,
    ReconcileView,
    ReconciliationExceptionsView,
)
from enforcement.api.rollout import RolloutView
from enforcement.api.run_tasks import RunTaskView
from enforcement.api.simulations import SimulationsView, SimulationView

urlpatterns: list[URLPattern] = [
    path("gate/terraform", TerraformGateView.as_view()),
    path("gate/terraform/preflight", TerraformPreflightView.as_view()),
    path("gate/k8s/admission", AdmissionView.as_view()),
    path("gate/k8s/admission/review", AdmissionReviewView.as_view()),
    path("gate/k8s/admission/review/<uuid:integration_id>", ClusterReviewView.as_view()),
    path("gate/cloud-event", CloudEventGateView.as_view()),
    path("gate/terraform/run-task/<uuid:integration_id>", RunTaskView.as_view()),
    path("gate/batch", BatchGateView.as_view()),
    path("policies", PolicyView.as_view()),
    path("policies/lint", PolicyLintView.as_view()),
    path("policies/diff", PolicyDiffView.as_view()),
    path("policies/schema", PolicySchemaView.as_view()),
    path("policies/versions", PolicyVersionsView.as_view()),
    path("policies/versions/<int:number>", PolicyVersionView.as_view()),
    path("policies/versions/<int:number>/rollback", PolicyRollbackView.as_view()),
    path("modes/emergency", EmergencyModeView.as_view()),
    path("approvals", ApprovalsView.as_view()),
    path("approvals/queue", ApprovalQueueView.as_view()),
    path("approvals/requests", ApprovalRequestsView.as_view()),
    path("approvals/consume", ConsumeView.as_view()),
    path("approvals/<uuid:approval_id>", ApprovalView.as_view()),
    path("approvals/<uuid:approval_id>/approve", ApproveView.as_view()),
    path("approvals/<uuid:approval_id>/deny", DenyView.as_view()),
    path("approvals/<uuid:approval_id>/withdraw", WithdrawView.as_view()),
    path("approvals/<uuid:approval_id>/token", TokenView.as_view()),
    path("budgets", BudgetsView.as_view()),
    path("budgets/<uuid:budget_id>", BudgetView.as_view()),
    path("costs", CostsView.as_view()),
    path("costs/summary", CostSummaryView.as_view()),
    path("costs/sub-accounts", SubAccountsView.as_view()),
    path("credits", CreditsView.as_view()),
    path("credits/<uuid:grant_id>", CreditView.as_view()),
    path("credits/<uuid:grant_id>/void", CreditVoidView.as_view()),
    path("decisions", DecisionsView.as_view()),
    path("decisions/<uuid:decision_id>", DecisionView.as_view()),
    path("ledger", LedgerView.as_view()),
    path("ledger/checkpoint", CheckpointView.as_view()),
    path("simulations", SimulationsView.as_view()),
    path("simulations/<uuid:simulation_id>", SimulationView.as_view()),
    path("rollout", RolloutView.as_view()),
    path("exports/parity", ExportParityView.as_view()),
    path("exports/archive", ExportArchiveView.as_view()),
    path("reservations/active", ActiveReservationsView.as_view()),
    path("reservations/reconcile-overdue", ReconcileOverdueView.as_view()),
    path("reservations/reconciliation-exceptions", ReconciliationExceptionsView.as_view()),
    path("reservations/<uuid:decision_id>/confirm", ConfirmView.as_view()),
    path("reservations/<uuid:decision_id>/reconcile", ReconcileView.as_view()),
]
