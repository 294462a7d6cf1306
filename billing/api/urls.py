"""Routes of billing, below ``/api/v1/billing/``."""

from __future__ import annotations

from django.urls import URLPattern, path

from billing.api.quotas import (
    QuotaCommitView,
    QuotaReleaseView,
    QuotaReservationsView,
    QuotaReservationView,
    QuotasView,
)

urlpatterns: list[URLPattern] = [
    path("quotas", QuotasView.as_view()),
    path("quotas/reservations", QuotaReservationsView.as_view()),
    path("quotas/reservations/<uuid:reservation_id>", QuotaReservationView.as_view()),
    path("quotas/reservations/<uuid:reservation_id>/commit", QuotaCommitView.as_view()),
    path("quotas/reservations/<uuid:reservation_id>/release", QuotaReleaseView.as_view()),
]
