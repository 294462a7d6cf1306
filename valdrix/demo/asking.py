"""Asking the gate what a pipeline would ask it: over HTTP, with an estimate and its plan."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import orjson

from valdrix.demo.content import PROJECT
from valdrix.kernel import strict_json

GATE: Final = "/api/v1/enforcement/gate/terraform"
PREFLIGHT: Final = f"{GATE}/preflight"
_TIMEOUT_SECONDS: Final = 30
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 1
_BIG_CHANGES: Final = (
    ("module.checkout.aws_rds_cluster.orders: larger instances", "640.00"),
    ("module.search.aws_opensearch_domain.catalogue: three more nodes", "1180.00"),
    ("module.cache.aws_elasticache_cluster.sessions", None),
)
_HERE: Final = Path(__file__).parent


class GateNotAsked(Exception):
    """The gate gave no decision; the message says why."""


def ask_about_estimate(
    *, base_url: str, api_key: str, environment: str, run_id: str
) -> dict[str, Any]:
    """Ask the preflight gate about the demo's estimate and return its decision.

    The plan goes along, so that the change is known by what it is: however often it is asked
    about, in whatever run, it is charged once. An answer that is only fail-safe is asked for
    again with the same key, as its explanation says.

    :raises GateNotAsked: when there is no answer, or one that is no decision.
    """
    body = {
        "project_id": PROJECT,
        "environment": environment,
        "action": "terraform.apply",
        "resource_reference": "shop/infrastructure: checkout scale-out",
        "run_id": f"{run_id}-{environment}",
        "stage": "pre_apply",
        "cost_estimate": {"format": "infracost", "document": _document("estimate.json")},
        "plan": _document("plan.json"),
    }
    answer = _post(f"{base_url}{PREFLIGHT}", api_key, body)
    for _ in range(_TRIES - 1):
        if answer["computed_context"] is not None:
            break
        time.sleep(_PAUSE_SECONDS)
        answer = _post(f"{base_url}{PREFLIGHT}", api_key, body)
    return answer


def ask_for_approval(*, base_url: str, api_key: str, day: str) -> int:
    """Ask about changes in prod that a person has to judge; return how many now wait.

    Asking again on the same day is told the same answers.

    :raises GateNotAsked: when there is no answer, or one that is no decision.
    """
    waiting = 0
    for number, (resource, amount) in enumerate(_BIG_CHANGES):
        body = {
            "project_id": PROJECT,
            "environment": "prod",
            "action": "terraform.apply",
            "resource_reference": resource,
            "estimated_monthly_delta_usd": amount,
            "idempotency_key": f"demo-{day}-{number}",
            "metadata": {"ticket": f"SHOP-{4100 + number}", "pipeline": "deploy-prod"},
        }
        answer = _post(f"{base_url}{GATE}", api_key, body)
        waiting += answer["decision"] == "REQUIRE_APPROVAL"
    return waiting


def _document(name: str) -> Any:
    return strict_json.loads((_HERE / name).read_bytes())


def _post(url: str, api_key: str, body: dict[str, Any]) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise GateNotAsked(f"{url} is no address of a web server.")
    request = urllib.request.Request(  # noqa: S310 - the scheme is one of two
        url,
        data=orjson.dumps(body),
        method="POST",
        headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
    )
    # Past any proxy: the demo's server is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer = strict_json.loads(response.read())
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode(errors="replace")
        raise GateNotAsked(f"{url} answers {error.code}: {said}") from error
    except (OSError, strict_json.StrictJsonError) as error:
        raise GateNotAsked(f"{url} gives no answer: {error}") from error
    if not isinstance(answer, dict) or "decision" not in answer:
        raise GateNotAsked(f"{url} answers something that is no decision.")
    return answer
