"""Routes of identity, below ``/api/v1/enforcement/``."""

from __future__ import annotations

from django.urls import path

from governance.api.api_keys import (
    ApiKeyRevocationView,
    ApiKeyRotationView,
    ApiKeysView,
    ApiKeyView,
)
from governance.api.audit import AuditView
from governance.api.bindings import BindingsView, BindingView
from governance.api.incidents import IncidentsView, IncidentView
from governance.api.integrations import (
    IntegrationRevocationView,
    IntegrationRotationView,
    IntegrationsView,
    IntegrationView,
)
from governance.api.members import MembersView, MemberView
from governance.api.reviewers import (
    ApprovalPermissionsView,
    ReviewerGroupsView,
    ReviewerGroupView,
)
from governance.api.workload_issuers import (
    WorkloadIssuerKeysView,
    WorkloadIssuerRevocationView,
    WorkloadIssuersView,
    WorkloadIssuerView,
)

urlpatterns = [
    path("api-keys", ApiKeysView.as_view()),
    path("api-keys/<uuid:key_id>", ApiKeyView.as_view()),
    path("api-keys/<uuid:key_id>/rotate", ApiKeyRotationView.as_view()),
    path("api-keys/<uuid:key_id>/revoke", ApiKeyRevocationView.as_view()),
    path("integrations", IntegrationsView.as_view()),
    path("integrations/<uuid:integration_id>", IntegrationView.as_view()),
    path("integrations/<uuid:integration_id>/rotate", IntegrationRotationView.as_view()),
    path("integrations/<uuid:integration_id>/revoke", IntegrationRevocationView.as_view()),
    path("integrations/<uuid:integration_id>/bindings", BindingsView.as_view()),
    path("integrations/<uuid:integration_id>/bindings/<uuid:binding_id>", BindingView.as_view()),
    path("workload-issuers", WorkloadIssuersView.as_view()),
    path("workload-issuers/<uuid:issuer_id>", WorkloadIssuerView.as_view()),
    path("workload-issuers/<uuid:issuer_id>/keys", WorkloadIssuerKeysView.as_view()),
    path("workload-issuers/<uuid:issuer_id>/revoke", WorkloadIssuerRevocationView.as_view()),
    path("members", MembersView.as_view()),
    path("members/<int:person_id>", MemberView.as_view()),
    path("members/<int:person_id>/approval-permissions", ApprovalPermissionsView.as_view()),
    path("reviewer-groups", ReviewerGroupsView.as_view()),
    path("reviewer-groups/<uuid:group_id>", ReviewerGroupView.as_view()),
    path("audit", AuditView.as_view()),
    path("incidents", IncidentsView.as_view()),
    path("incidents/<uuid:incident_id>", IncidentView.as_view()),
]
