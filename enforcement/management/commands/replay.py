"""``manage.py replay``: decide stored decisions again and compare the outcomes, byte by byte."""

from __future__ import annotations

import sys
import uuid
from typing import Any, Final

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from enforcement.gate.decision import ENGINE_VERSION
from enforcement.replay.domain import Replayed
from enforcement.replay.queries import Span
from enforcement.replay.replaying import ReplayReport, replay
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.db import tenant_ids_for_job
from valdrix.kernel.fields import Fields
from valdrix.kernel.problems import InvalidRequest

_SHOWN: Final = 10
_SHOWN_CHANGES: Final = 8


class Command(BaseCommand):
    """Exits 0 when every outcome is the stored one, 1 when not or nothing was there, 2 on misuse."""

    help = (
        "Run decide again on the contexts stored with decisions; every outcome must have the stored"
        " hash. Decisions of another engine version may differ and are listed, unless --strict."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the span, one tenant or all, and how strict to be."""
        parser.add_argument("--tenant", metavar="SLUG", help="this tenant; every one without it")
        parser.add_argument(
            "--from", dest="start", metavar="TIME", help="from the first without it"
        )
        parser.add_argument(
            "--to", dest="end", metavar="TIME", help="exclusive; to the last without"
        )
        parser.add_argument("--strict", action="store_true", help="engine_changed is an error too")
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Replay, print what was found, and fail on a difference."""
        start_at, end_at = read_span(options)
        found = []
        for tenant_id, name in _tenants(options["tenant"]):
            span = Span(tenant_id=tenant_id, start_at=start_at, end_at=end_at)
            report = replay(span, progress=self._progress_of(name))
            found.append((name, report))
            if not options["json"]:
                self.stdout.write("\n".join(_lines(name, report)))
        if options["json"]:
            self.stdout.write(_to_json(found, strict=options["strict"]))
        if not any(report.total for _, report in found):
            raise CommandError("there is no decision: nothing was replayed", returncode=1)
        faulty = [
            name for name, report in found if not report.is_faultless(strict=options["strict"])
        ]
        if faulty:
            raise CommandError(f"outcomes differ: {', '.join(faulty)}", returncode=1)

    def _progress_of(self, name: str) -> Any:
        if not sys.stderr.isatty():
            return None
        return lambda done, total: self.stderr.write(f"\r{name}: {done} of {total}", ending="")


def read_span(options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the moments that ``--from`` and ``--to`` name, else the beginning and end of time.

    :raises CommandError: when one is no time, or the end is not after the start.
    """
    given = {name: options[key] for name, key in (("from", "start"), ("to", "end")) if options[key]}
    fields = Fields({"from": "0001-01-02T00:00:00Z", "to": "9999-12-30T00:00:00Z", **given})
    start_at, end_at = fields.time("from"), fields.time("to")
    try:
        fields.finish()
    except InvalidRequest as refusal:
        detail = "; ".join(f"--{one.pointer[1:]} {one.detail}" for one in refusal.errors)
        raise CommandError(detail, returncode=2) from refusal
    if start_at is not None and end_at is not None and start_at >= end_at:
        raise CommandError("--to must be later than --from", returncode=2)
    return start_at, end_at


def _tenants(slug: str | None) -> list[tuple[uuid.UUID, str]]:
    if slug is None:
        return [(tenant_id, str(tenant_id)) for tenant_id in tenant_ids_for_job("replay")]
    tenant_id = find_tenant_id(slug)
    if tenant_id is None:
        raise CommandError(f"there is no tenant {slug!r}", returncode=2)
    return [(tenant_id, slug)]


def _lines(name: str, report: ReplayReport) -> list[str]:
    said = ", ".join(f"{count} {result}" for result, count in sorted(report.results.items()))
    lines = [f"{name}: {report.total} decisions replayed by {ENGINE_VERSION}: {said or 'none'}"]
    for one in report.found[:_SHOWN]:
        stored = one.stored
        lines.append(f"  {one.result} {stored.decision_id} at {stored.sequence}: {one.reason}")
        lines.extend(
            f"    {change.pointer}: {_short(change.old)} -> {_short(change.new)}"
            for change in one.changes[:_SHOWN_CHANGES]
        )
    return lines


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _to_json(found: list[tuple[str, ReplayReport]], *, strict: bool) -> str:
    document = {
        "engine_version": ENGINE_VERSION,
        "same": all(report.is_faultless(strict=strict) for _, report in found),
        "tenants": [
            {
                "tenant": name,
                "decisions": report.total,
                "results": dict(sorted(report.results.items())),
                "found": [_to_document(one) for one in report.found],
            }
            for name, report in found
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _to_document(one: Replayed) -> dict[str, Any]:
    return {
        "decision_id": str(one.stored.decision_id),
        "sequence": one.stored.sequence,
        "result": one.result,
        "reason": one.reason,
        "changes": [
            {"pointer": change.pointer, "stored": change.old, "now": change.new}
            for change in one.changes
        ],
    }
