"""Routes of the gate, below ``/api/v1/enforcement/``."""

from __future__ import annotations

from django.urls import URLPattern, path

from enforcement.api.gates import BatchGateView, TerraformGateView, TerraformPreflightView

urlpatterns: list[URLPattern] = [
    path("gate/terraform", TerraformGateView.as_view()),
    path("gate/terraform/preflight", TerraformPreflightView.as_view()),
    path("gate/batch", BatchGateView.as_view()),
]
