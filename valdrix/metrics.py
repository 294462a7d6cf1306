"""``/metrics``: what Prometheus scrapes."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from valdrix.kernel.metrics import CONTENT_TYPE, render_metrics


@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Return the metrics of all worker processes."""
    return HttpResponse(render_metrics(), content_type=CONTENT_TYPE)
