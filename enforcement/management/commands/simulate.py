"""``manage.py simulate``: what a policy would have said of past decisions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from enforcement.management.commands.replay import read_span
from enforcement.replay.queries import Span
from enforcement.replay.simulation import simulate
from governance.policies.document import InvalidPolicy, parse_policy
from governance.tenants.queries import find_tenant_id
from valdrix.kernel import strict_json

_SHOWN: Final = 10


class Command(BaseCommand):
    """Exits 0 with a result, 1 when there was no decision, 2 when used wrongly."""

    help = "Run a policy on past decisions, each against the headroom stored with it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the policy, the tenant and the span."""
        parser.add_argument("--policy", type=Path, required=True, metavar="FILE")
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument(
            "--from", dest="start", metavar="TIME", help="from the first without it"
        )
        parser.add_argument(
            "--to", dest="end", metavar="TIME", help="exclusive; to the last without"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Simulate and print what would have been."""
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        start_at, end_at = read_span(options)
        policy = _read_policy(options["policy"])
        span = Span(tenant_id=tenant_id, start_at=start_at, end_at=end_at)
        result = simulate(span, policy, progress=self._tell if sys.stderr.isatty() else None)
        if options["json"]:
            self.stdout.write(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
        else:
            self.stdout.write("\n".join(_lines(result)))
        if not result["decisions"]:
            raise CommandError("there is no decision: nothing was simulated", returncode=1)

    def _tell(self, done: int, total: int) -> None:
        self.stderr.write(f"\r{done} of {total} decisions", ending="")


def _read_policy(path: Path) -> Any:
    try:
        return parse_policy(strict_json.loads(path.read_bytes()))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from error
    except strict_json.StrictJsonError as error:
        raise CommandError(f"{path}: {error}", returncode=2) from error
    except InvalidPolicy as refusal:
        errors = "; ".join(f"{one.pointer} {one.detail}" for one in refusal.errors)
        raise CommandError(f"{path}: {errors}", returncode=2) from refusal


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['decisions']} decisions; {result['changed']} would have been another"]
    lines += [
        f"  {name:22} {result[name]}"
        for name in ("would_allow", "would_require_approval", "would_deny")
    ]
    lines += [
        f"  {one['from']} -> {one['to']}: {one['decisions']} decisions,"
        f" {one['monthly_increase_usd']} USD a month"
        for one in result["moved"]
    ]
    for one in result["changed_decisions"][:_SHOWN]:
        lines.append(
            f"  {one['decision_id']} {one['from']} -> {one['to']}:"
            f" {', '.join(one['reason_codes_to'])}"
        )
    positives = result["false_positives"]
    lines.append(
        f"false positives: {positives['denied_but_approved_then']['decisions']} of"
        f" {positives['denied']['decisions']} denied here had been approved by people"
    )
    lines.append(result["note"])
    return lines
