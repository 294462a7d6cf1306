"""The root URLconf: composition of every app's doors."""

from __future__ import annotations

from django.urls import include, path

from governance.api.key_set import KeySetView
from governance.api.permissions import RequireRole, RequireWholeTenant
from governance.identity.domain import ADMIN
from telemetry.api.readings import build_urls
from valdrix.admin_site import console
from valdrix.health import HealthView, LiveView, ReadyView
from valdrix.metrics import metrics_view
from valdrix.openapi import DocsView, SchemaView

urlpatterns = [
    # The gates stand first: a route is found by trying those before it.
    path("api/v1/enforcement/", include("enforcement.api.urls")),
    path("api/v1/enforcement/", include("governance.api.urls")),
    path("api/v1/billing/", include("billing.api.urls")),
    path(".well-known/jwks.json", KeySetView.as_view()),
    path("api/v1/telemetry/", include(build_urls([RequireRole(ADMIN), RequireWholeTenant]))),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view()),
    path("health", HealthView.as_view()),
    path("health/live", LiveView.as_view()),
    path("health/ready", ReadyView.as_view()),
    path("metrics", metrics_view),
    path("admin/", console.urls),
]

handler400 = "valdrix.kernel.http.problem_response.bad_request"
handler403 = "valdrix.kernel.http.problem_response.forbidden"
handler404 = "valdrix.kernel.http.problem_response.not_found"
handler500 = "valdrix.kernel.http.problem_response.server_error"
