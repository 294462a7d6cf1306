"""``manage.py rollout status|promote``: how far modes are, and one step up by two people."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from enforcement.api.rollout import render_rollout
from enforcement.rollout.operations import (
    Promoter,
    Rollout,
    propose,
    read_rollout,
    sign,
    withdraw,
)
from governance.audit.operations import Actor
from governance.identity.domain import ADMIN, OWNER
from governance.identity.queries import find_membership, find_person
from governance.policies.domain import SOURCES
from governance.policies.environments import ENVIRONMENTS
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.db import reading
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused


class Command(BaseCommand):
    """Exits 0 when done, 1 when refused with the figure that is missing, 2 when used wrongly."""

    help = "Show how far each mode is, propose its next step, or sign another person's proposal."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to do, and for whom."""
        doing = parser.add_subparsers(dest="doing", required=True)
        status = doing.add_parser("status", help="modes, figures, and what the next step lacks")
        status.add_argument("--tenant", required=True, metavar="SLUG")
        status.add_argument("--json", action="store_true", help="print one JSON document")
        promote = doing.add_parser(
            "promote", help="propose the next step, or sign it where another person proposed it"
        )
        promote.add_argument("--tenant", required=True, metavar="SLUG")
        promote.add_argument("--source", required=True, choices=SOURCES)
        promote.add_argument("--environment", required=True, choices=ENVIRONMENTS)
        promote.add_argument("--by", required=True, metavar="USERNAME", help="an admin or owner")
        promote.add_argument("--withdraw", action="store_true", help="withdraw the proposal")

    def handle(self, *args: Any, **options: Any) -> None:
        """Look or promote, and say what happened."""
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        if options["doing"] == "status":
            actor = Actor(tenant_id, "system:rollout", None, timezone.now())
            rollout = read_rollout(actor)
            self.stdout.write(_to_json(rollout) if options["json"] else "\n".join(_lines(rollout)))
            return
        promoter = _find_promoter(tenant_id, options["by"])
        scope = (options["source"], options["environment"])
        try:
            self.stdout.write(_promote(promoter, scope, is_withdrawal=options["withdraw"]))
        except Refused as refusal:
            raise CommandError(
                f"{refusal.problem_code}: {refusal.detail}", returncode=1
            ) from refusal


def _promote(promoter: Promoter, scope: tuple[str, str], *, is_withdrawal: bool) -> str:
    name = f"{scope[0]}.{scope[1]}"
    if is_withdrawal:
        withdraw(promoter=promoter, scope=scope)
        return f"{name}: the proposal is withdrawn"
    standings = read_rollout(promoter.actor).standings
    proposal = next(one.proposal for one in standings if (one.source, one.environment) == scope)
    if proposal is None:
        made = propose(promoter=promoter, promotion_id=new_id(), scope=scope)
        return (
            f"{name}: {made.from_mode} to {made.to_mode} is proposed;"
            f" another admin or owner signs it before {made.expires_at:%Y-%m-%d %H:%M} UTC"
        )
    version = sign(promoter=promoter, version_id=new_id(), scope=scope)
    return f"{name}: signed; policy version {version.number} raises it to {proposal.to_mode}"


def _find_promoter(tenant_id: uuid.UUID, username: str) -> Promoter:
    person = find_person(username)
    with reading(tenant_id):
        membership = None if person is None else find_membership(tenant_id, person.pk)
    if person is None or membership is None or membership.role not in {ADMIN, OWNER}:
        raise CommandError(f"{username!r} is no admin or owner of the tenant", returncode=2)
    actor = Actor(tenant_id, f"user:{person.pk}", None, timezone.now())
    return Promoter(actor=actor, person_id=person.pk)


def _lines(rollout: Rollout) -> list[str]:
    rule = "by promotion only" if rollout.is_required else "by publishing too"
    lines = [f"modes rise {rule}"]
    for one in rollout.standings:
        figures = one.figures
        state = "at the top" if one.next_mode is None else f"next {one.next_mode}"
        if one.proposal is not None:
            state = f"{one.proposal.to_mode} proposed by {one.proposal.proposed_by}"
        lines.append(
            f"{one.source}.{one.environment}: {one.mode}, {state}; {figures.decisions} decisions,"
            f" false positives {figures.false_positive_rate}, errors {figures.error_rate},"
            f" p95 {'-' if figures.p95_ms is None else figures.p95_ms} ms"
        )
        lines += [f"    missing: {missing}" for missing in one.missing]
    return lines


def _to_json(rollout: Rollout) -> str:
    return orjson.dumps(render_rollout(rollout), option=orjson.OPT_INDENT_2).decode()
