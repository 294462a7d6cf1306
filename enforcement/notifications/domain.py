"""What is told, in which words, and when a failed delivery is tried again. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

APPROVAL_REQUESTED: Final = "approval.requested"
APPROVAL_APPROVED: Final = "approval.approved"
APPROVAL_DENIED: Final = "approval.denied"
APPROVAL_WITHDRAWN: Final = "approval.withdrawn"
APPROVAL_EXPIRED: Final = "approval.expired"
APPROVAL_REMINDER: Final = "approval.reminder"
BUDGET_ALERT: Final = "budget.alert"
KINDS: Final = (
    APPROVAL_REQUESTED,
    APPROVAL_APPROVED,
    APPROVAL_DENIED,
    APPROVAL_WITHDRAWN,
    APPROVAL_EXPIRED,
    APPROVAL_REMINDER,
    BUDGET_ALERT,
)
TO_REVIEWERS: Final = (APPROVAL_REQUESTED, APPROVAL_REMINDER)
TO_REQUESTERS: Final = (
    APPROVAL_APPROVED,
    APPROVAL_DENIED,
    APPROVAL_WITHDRAWN,
    APPROVAL_EXPIRED,
)

EMAIL: Final = "email"
WEBHOOK: Final = "webhook"
CHANNELS: Final = (EMAIL, WEBHOOK)

GENERIC: Final = "generic"
SLACK: Final = "slack"

MOST_ATTEMPTS: Final = 8
_FIRST_RETRY: Final = timedelta(seconds=30)
_LONGEST_RETRY: Final = timedelta(hours=1)
_REMINDED_BEFORE: Final = timedelta(hours=4)
_TITLES: Final = {
    APPROVAL_REQUESTED: "Approval needed",
    APPROVAL_REMINDER: "Still waiting for approval",
    APPROVAL_APPROVED: "Approved",
    APPROVAL_DENIED: "Denied",
    APPROVAL_WITHDRAWN: "Withdrawn",
    APPROVAL_EXPIRED: "Expired without a decision",
    BUDGET_ALERT: "Budget alert",
}
_ENDS: Final = {
    APPROVAL_REQUESTED: "Open it, sign in, and decide:",
    APPROVAL_REMINDER: "Its time is running out. Open it, sign in, and decide:",
    APPROVAL_APPROVED: "The token can be claimed now. In full:",
    BUDGET_ALERT: "The budget:",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What is said, without markup.

    :ivar facts: label and value, each of one line.
    """

    subject: str
    facts: tuple[tuple[str, str], ...]
    ending: str
    url: str

    @property
    def text(self) -> str:
        """Return the whole as plain text."""
        lines = [f"{label}: {value}" for label, value in self.facts]
        return "\n".join([self.subject, "", *lines, "", self.ending, self.url, ""])


def build_message(kind: str, facts: dict[str, Any], *, url: str) -> Message:
    """Return what is said about an event.

    :param facts: what was kept with the notice; texts of callers among them.
    """
    if kind == BUDGET_ALERT:
        about = f"{facts['project_id']} is at {facts['level_percent']} % of its budget"
        shown: tuple[tuple[str, Any], ...] = (
            ("Project", facts["project_id"]),
            ("Scope", facts["scope"]),
            ("Used", f"{facts['used_usd']} of {facts['limit_usd']} USD in {facts['month']}"),
        )
    else:
        amount = facts["monthly_delta_usd"]
        cost = "an unknown amount" if amount is None else f"{amount} USD"
        about = f"{facts['project_id']} / {facts['environment']}, {cost} a month"
        shown = (
            ("Change", facts["action"]),
            ("Resource", facts["resource_reference"]),
            ("Project", f"{facts['project_id']} / {facts['environment']}"),
            ("Cost", f"{cost} a month"),
            ("Risk", facts.get("risk_class") or "unknown"),
            ("Asked by", facts["requester"]),
            ("Reason", facts.get("reason") or ""),
            ("Expires", facts.get("expires_at") or ""),
        )
    return Message(
        subject=one_line(f"[Valdrix] {_TITLES[kind]}: {about}")[:200],
        facts=tuple((label, one_line(str(value))) for label, value in shown if value),
        ending=_ENDS.get(kind, "In full:"),
        url=url,
    )


def one_line(text: str) -> str:
    """Return a text that cannot begin another line or header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def build_slack(message: Message) -> dict[str, Any]:
    """Return what a Slack-compatible incoming webhook takes; texts of callers are no markup.

    Only ``plain_text`` renders nothing: in ``mrkdwn`` a caller could set words in bold as we set
    labels, and link to other places.
    """
    return {
        "text": _escape(message.subject),
        "mrkdwn": False,
        "unfurl_links": False,
        "blocks": [
            {"type": "header", "text": _plain(message.subject, 150)},
            {
                "type": "section",
                "fields": [_plain(f"{label}: {value}", 2000) for label, value in message.facts],
            },
            {
                "type": "actions",
                "elements": [
                    {
                        "type": "button",
                        "text": _plain("Open in Valdrix", 75),
                        "url": message.url,
                    }
                ],
            },
        ],
    }


def _plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": text[:limit], "emoji": False}


def sign(body: bytes, *, secret: str, timestamp: int) -> str:
    """Return the signature header of a webhook: HMAC-SHA256 over ``timestamp.body``."""
    signed = f"{timestamp}.".encode() + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def retry_after(attempts: int) -> timedelta | None:
    """Return how long to wait after this many failed attempts; None gives up."""
    if attempts >= MOST_ATTEMPTS:
        return None
    wait: timedelta = _FIRST_RETRY * 2 ** (attempts - 1)
    return min(wait, _LONGEST_RETRY)


def is_worth_retrying(status: int) -> bool:
    """Tell whether an HTTP status may be another one later."""
    return status in {408, 425, 429} or status >= 500


def reminded_before(ttl: timedelta) -> timedelta:
    """Return how long before its end an approval is reminded of: four hours, or a quarter."""
    return min(_REMINDED_BEFORE, ttl / 4)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
