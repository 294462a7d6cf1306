"""``manage.py check_integrity``: the invariants between rows, of one tenant or of all."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from enforcement.integrity.domain import Finding, Report, Violation
from enforcement.integrity.operations import check_integrity
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.db import tenant_ids_for_job

_JOB = "check_integrity"
_SHOWN = 3


class Command(BaseCommand):
    """Exits 0 when all holds, 1 when something does not or no row was seen, 2 when used wrongly."""

    help = (
        "Check the invariants between rows, open an incident for each that does not hold, repair"
        " nothing. The ledger's hash chain is verify_ledger's."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take one tenant or all of them."""
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--tenant", metavar="SLUG", help="check this tenant")
        scope.add_argument("--all", action="store_true", help="check every tenant")
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, print what was inspected, and fail on what does not hold or was not there."""
        found = []
        for tenant_id, name in _tenants(options):
            report = check_integrity(
                tenant_id=tenant_id, at=timezone.now(), progress=self._progress_of(name)
            )
            found.append((name, report))
            if not options["json"]:
                self.stdout.write("\n".join(_lines(name, report)))
        if options["json"]:
            self.stdout.write(_to_json(found))
        elif len(found) != 1:
            self.stdout.write(_summary(found))
        _judge(found)

    def _progress_of(self, name: str) -> Any:
        if not self.stderr.isatty():
            return None
        return lambda done, total: self.stderr.write(
            f"\r{name}: {done} of {total} invariants", ending="\n" if done == total else ""
        )


def _tenants(options: dict[str, Any]) -> list[tuple[uuid.UUID, str]]:
    if options["all"]:
        return [(tenant_id, str(tenant_id)) for tenant_id in tenant_ids_for_job(_JOB)]
    tenant_id = find_tenant_id(options["tenant"])
    if tenant_id is None:
        raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
    return [(tenant_id, options["tenant"])]


def _judge(found: list[tuple[str, Report]]) -> None:
    violated = [name for name, report in found if report.violated]
    if violated:
        raise CommandError(f"violated: {', '.join(violated)}", returncode=1)
    if not any(report.inspected for _, report in found):
        raise CommandError("no row was inspected: nothing was checked", returncode=1)


def _lines(name: str, report: Report) -> list[str]:
    """Return a tenant's table; a tenant without rows is one line, because nothing was checked."""
    if report.status == "empty":
        return [f"{name}: empty; 0 rows inspected, so nothing was checked"]
    width = max(len(finding.invariant.name) for finding in report.findings)
    lines = [f"{name}: {report.status}; {report.inspected} rows inspected"]
    lines.append(f"  {'invariant':<{width}}  inspected  violations")
    for finding in report.findings:
        lines.append(
            f"  {finding.invariant.name:<{width}}  {finding.inspected:>9}  {finding.violations:>10}"
        )
        lines.extend(_examples(finding))
    return lines


def _examples(finding: Finding) -> list[str]:
    if not finding.violations:
        return []
    shown = [f"      {_example(example)}" for example in finding.examples[:_SHOWN]]
    more = finding.violations - len(shown)
    return [f"    {finding.invariant.sentence}", *shown, *([f"      and {more} more"] * bool(more))]


def _example(violation: Violation) -> str:
    expected = "nothing" if violation.expected is None else violation.expected
    found = "nothing" if violation.found is None else violation.found
    return f"{violation.id}: expected {expected}, found {found}"


def _summary(found: list[tuple[str, Report]]) -> str:
    rows = sum(report.inspected for _, report in found)
    states = [report.status for _, report in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("sound", "violated", "empty"))
    return f"{rows} rows inspected in {len(found)} tenants: {counts}"


def _to_json(found: list[tuple[str, Report]]) -> str:
    document = {
        "sound": not any(report.violated for _, report in found)
        and any(report.inspected for _, report in found),
        "inspected": sum(report.inspected for _, report in found),
        "tenants": [
            {
                "tenant": name,
                "tenant_id": str(report.tenant_id),
                "status": report.status,
                "inspected": report.inspected,
                "invariants": [finding.to_document() for finding in report.findings],
            }
            for name, report in found
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
