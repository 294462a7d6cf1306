"""Capturing ``key_rotation_drill`` evidence: keys really rotated while tokens are out (BSAFE-011).

Tokens are asked for, claimed and presented over HTTP, as pipelines do; keys are rotated and retired
by the operations behind ``manage.py keys``. Each step is kept with the answer it got.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from governance.evidence.key_rotation import (
    ISSUED,
    OUTCOMES,
    PASSED,
    PRESENTED,
    PROFILE,
    RETIRED,
    ROTATED,
    RUNNER,
    find_shown,
)
from governance.tokens.keys import retire_key, rotate_keys
from valdrix.certification.telemetry.calling import Place, call
from valdrix.certification.tenant import BASE, CallRefused, ask, open_tenant
from valdrix.kernel import strict_json
from valdrix.kernel.ids import new_id
from valdrix.kernel.signing import decode

_AMOUNT: Final = "25.00"
_PROJECT: Final = "key-rotation-drill"
FAILED: Final = "FAIL"
_POLICY: Final = {
    "schema_version": "valdrix.enforcement.policy.v1",
    "modes": {"terraform": {"default": "hard", "nonprod": "soft"}},
    "thresholds": {"nonprod": {"require_approval_from_usd": "1.00"}},
    # The drill is of keys: one person asks and approves.
    "approvals": {"nonprod": {"required": 1, "separate_requester": False, "ttl_seconds": 3600}},
}
"""What the drill's own tenant is governed by: every change there needs an approval."""


@dataclass(frozen=True, slots=True)
class DrillOrder:
    """Who does it where, and when the next one is due.

    :ivar place: a running server on the configured database; the key is the drill's own.
    """

    place: Place
    owner: str
    approver: str
    next_in: timedelta


@dataclass(slots=True)
class _Drill:
    place: Place
    clock: Callable[[], datetime]
    tell: Callable[[str], None]
    tokens: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def issue(self, name: str) -> str:
        """Ask for a change, approve it and claim its token; return the id of the key it names."""
        change = {
            "project_id": _PROJECT,
            "environment": "dev",
            "resource_reference": f"module.{name}-{new_id()}",
            "estimated_monthly_delta_usd": _AMOUNT,
        }
        asked = ask(self.place, "gate/terraform", change)
        approval = asked["approval_request_id"]
        if approval is None:
            raise CallRefused(f"a change was {asked['decision']}: the drill needs approvals")
        ask(self.place, f"approvals/{approval}/approve", {"reason": "key rotation drill"})
        text = str(ask(self.place, f"approvals/{approval}/token", {})["approval_token"])
        kid = str(strict_json.loads(decode(text.split(".", 1)[0]))["kid"])
        self.tokens[name] = (text, str(asked["request_fingerprint"]), kid)
        self._keep(ISSUED, kid, token=name)
        return kid

    def present(self, name: str) -> None:
        """Present a token, and keep the answer whatever it is."""
        text, fingerprint, kid = self.tokens[name]
        body = {
            "approval_token": text,
            "monthly_delta_usd": _AMOUNT,
            "expected_request_fingerprint": fingerprint,
        }
        answer = call(self.place, "POST", f"{BASE}approvals/consume", body)
        # A problem document is no application/json to the caller, which leaves it as text.
        code = (
            {}
            if answer.status == 200
            else {"code": strict_json.loads(answer.body.encode())["code"]}
        )
        self._keep(PRESENTED, kid, token=name, status=answer.status, **code)

    def rotate(self) -> str:
        """Make a key that signs from now on; return its id."""
        now = self.clock()
        key = rotate_keys(
            kid=f"approvals-{new_id().hex[-12:]}", now=now, active_from=now, old_retire_at=None
        )
        self._keep(ROTATED, key.kid)
        return key.kid

    def retire(self, kid: str) -> None:
        """Refuse a key's tokens from now on."""
        retire_key(kid=kid, now=self.clock())
        self._keep(RETIRED, kid)

    def _keep(self, did: str, kid: str, **more: Any) -> None:
        step = {"did": did, "kid": kid, "at": self.clock().isoformat(), **more}
        self.steps.append(step)
        told = f" {more['token']}" if "token" in more else ""
        answer = f": {more['status']} {more.get('code', '')}" if "status" in more else ""
        self.tell(f"{did}{told} ({kid}){answer}")


def capture_key_rotation(
    order: DrillOrder, *, clock: Callable[[], datetime], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Do the drill and return the evidence, good or bad.

    It ends with the key of a second rotation signing, and the key from before the drill retired.

    :param tell: called with a line of progress.
    :raises CallRefused: when the server refuses what every pipeline does.
    """
    drill = _Drill(open_tenant(order.place, _PROJECT, _POLICY, at=clock()), clock, tell)
    before = drill.issue("spent-before")
    drill.issue("kept-through")
    drill.issue("kept-too-long")
    drill.present("spent-before")
    first = drill.rotate()
    drill.issue("of-the-new-key")
    drill.present("kept-through")
    drill.present("spent-before")
    # The new key is withdrawn as if it had leaked: the former one has to sign again.
    drill.retire(first)
    drill.present("of-the-new-key")
    drill.issue("after-the-rollback")
    drill.present("after-the-rollback")
    after = drill.rotate()
    drill.issue("of-the-last-key")
    drill.retire(before)
    drill.present("kept-too-long")
    drill.present("of-the-last-key")
    return _document(order, drill.steps, {"before": before, "after": after}, clock())


def _document(
    order: DrillOrder, steps: list[dict[str, Any]], keys: dict[str, str], executed_at: datetime
) -> dict[str, Any]:
    shown = find_shown(steps)
    outcomes = {name: name in shown for name in OUTCOMES}
    return {
        "profile": PROFILE,
        "runner": RUNNER,
        "executed_at": executed_at.isoformat(),
        "owner": order.owner,
        "approver": order.approver,
        "keys": keys,
        "outcomes": outcomes,
        "steps": steps,
        "post_drill_status": PASSED if all(outcomes.values()) else FAILED,
        "next_drill_due_on": (executed_at + order.next_in).date().isoformat(),
    }
