"""``manage.py ingest_costs FILE --tenant SLUG``: take a file of costs, whole and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing.costs.domain import AUTO, DEFAULT_TAG_KEYS, FORMATS
from billing.costs.files import CostFile, Progress, find_carrier
from enforcement.controls.costs import ALREADY_INGESTED, Ingestion, Means, ingest_costs
from governance.audit.operations import Actor
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.ids import new_id
from valdrix.kernel.money import to_text
from valdrix.kernel.problems import Refused

_BY: Final = "system:ingest-costs"
_BAR_WIDTH: Final = 30


class Command(BaseCommand):
    """Exits 0 when the file is in, now or before; 1 when it is refused; 2 when used wrongly."""

    help = (
        "Take a file of costs: FinOps FOCUS 1.x as CSV or Parquet, or rows date,project,amount."
        " The file is taken whole or not at all; the same file again changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a file and a tenant."""
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--tenant", metavar="SLUG", required=True)
        parser.add_argument("--format", choices=(AUTO, *FORMATS), default=AUTO)
        parser.add_argument(
            "--project-tag",
            metavar="KEY",
            action="append",
            help="a tag that names the project, in order of preference; default: project",
        )
        parser.add_argument(
            "--whole-days",
            action="store_true",
            help="the file names all that its bills have of its days: what it does not name is 0",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Read the file, take it, and print what changed."""
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        actor = Actor(tenant_id=tenant_id, principal_id=_BY, address=None, at=timezone.now())
        means = Means(
            tag_keys=tuple(options["project_tag"] or DEFAULT_TAG_KEYS),
            has_whole_days=options["whole_days"],
            progress=self._progress(),
        )
        try:
            with options["file"].open("rb") as stream:
                file = CostFile(stream, find_carrier(stream), options["format"])
                result = ingest_costs(actor=actor, ingestion_id=new_id(), file=file, means=means)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise CommandError(f"cannot read {options['file']}: {reason}", returncode=2) from error
        except Refused as refusal:
            raise CommandError(_explain(refusal), returncode=1) from refusal
        finally:
            self._end_progress()
        self.stdout.write(_table(result))

    def _progress(self) -> Progress | None:
        """Return what draws the bar, on a terminal only."""
        self._drawn = ""
        if not self.stderr.isatty():
            return None

        def draw(done: int, total: int) -> None:
            percent = 100 * done // max(total, 1)
            filled = _BAR_WIDTH * percent // 100
            text = f"\r[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {percent:3} %"
            if text != self._drawn:
                self._drawn = text
                self.stderr.write(text, ending="")
                self.stderr.flush()

        return draw

    def _end_progress(self) -> None:
        if self._drawn:
            self.stderr.write("")


def _explain(refusal: Refused) -> str:
    lines = [refusal.detail]
    lines += [f"  {error.pointer[1:]}: {error.detail} ({error.code})" for error in refusal.errors]
    return "\n".join(lines)


def _table(result: Ingestion) -> str:
    """Return what became of the file, a line each."""
    already = result.status == ALREADY_INGESTED
    rows = (
        ("status", "already ingested: nothing changed" if already else "ingested"),
        ("file", f"sha256 {result.content_sha256}"),
        ("format", result.file_format),
        ("rows", str(result.rows)),
        ("days", f"{result.first_date} to {result.last_date}"),
        ("total", f"{to_text(result.total_usd)} USD"),
        ("units added", str(result.units_added)),
        ("units restated", f"{result.units_restated} ({to_text(result.difference_usd)} USD)"),
        ("units unchanged", str(result.units_unchanged)),
        ("units absent", str(result.units_absent)),
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
