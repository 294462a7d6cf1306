"""Use cases of costs: files taken whole and once, what they restate audited, and what is spent.

Costs have no ledger entry: they change the headroom of budgets on ``actuals`` only, and each
decision keeps the spending that it was made with. The audit log says who restated what.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from billing.costs import operations, queries
from billing.costs.domain import (
    DEFAULT_TAG_KEYS,
    HISTORY_DAYS,
    CostBatch,
    CostFileUnreadable,
    ProjectRules,
    Unit,
    exact_sum,
)
from billing.costs.files import CostFile, Progress, digest_of, read_cost_file
from billing.costs.models import CostIngestion
from billing.costs.operations import IngestionOrigin, Taken
from enforcement.gate.context import ComputedContext, DayCost, build_context, sum_up
from enforcement.gate.inputs import TERRAFORM, UNESTIMATED, GateInput, GateRequest, normalise
from governance.audit.operations import Actor, record_change
from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.db import TimeLimits, reading, transaction
from valdrix.kernel.money import EXACT, ZERO, to_text

INGESTED: Final = "ingested"
ALREADY_INGESTED: Final = "already_ingested"

# A file of the same tenant that is being taken at this moment is waited for.
_LIMITS: Final = TimeLimits(lock_timeout_ms=20_000, statement_timeout_ms=120_000)
_MOST_UNITS_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What became of a file.

    :ivar status: ``ingested``, or ``already_ingested`` when nothing was written.
    :ivar ingestion_id: of the ingestion that took the file, now or then.
    :ivar units_absent: units of the same bills and days that the file does not name.
    :ivar total_usd: the sum of the file in US dollars, rounded once.
    :ivar difference_usd: by how much units that were restated are more than they were.
    """

    status: str
    ingestion_id: uuid.UUID
    content_sha256: str
    file_format: str
    rows: int
    units_added: int
    units_restated: int
    units_unchanged: int
    units_absent: int
    first_date: date
    last_date: date
    total_usd: Decimal
    difference_usd: Decimal


@dataclass(frozen=True, slots=True)
class Spending:
    """What a project spends, by the rules that the gate decides with.

    :ivar place: where the project stands in the list.
    """

    place: int
    project_id: str
    computed: ComputedContext


@dataclass(frozen=True, slots=True)
class Means:
    """How a file is read.

    :ivar tag_keys: tags that name the project, in order of preference.
    :ivar has_whole_days: the file names all that its bills have of its days: what it does not
        name is zero.
    :ivar progress: is told from time to time how many of how many bytes have been read.
    """

    tag_keys: tuple[str, ...] = DEFAULT_TAG_KEYS
    has_whole_days: bool = False
    progress: Progress | None = None


def ingest_costs(
    *, actor: Actor, ingestion_id: uuid.UUID, file: CostFile, means: Means
) -> Ingestion:
    """Take a file of costs whole, once; a unit that it restates replaces the one that stood.

    :raises CostFileUnreadable: when the file cannot be read; nothing is written.
    :raises CostFileRefused: when any row is not valid; nothing is written.
    """
    digest = digest_of(file)
    with reading(actor.tenant_id):
        row = queries.find_ingestion(actor.tenant_id, digest)
        sub_accounts = queries.read_sub_accounts(actor.tenant_id)
    if row is not None:
        return _already(row)
    rules = ProjectRules(tag_keys=means.tag_keys, sub_accounts=sub_accounts)
    batch = read_cost_file(file, rules=rules, now=actor.at, progress=means.progress)
    if digest_of(file) != digest:
        raise CostFileUnreadable("The file changed while it was read; nothing of it was taken.")
    origin = IngestionOrigin(
        tenant_id=actor.tenant_id,
        ingestion_id=ingestion_id,
        content_sha256=digest,
        size_bytes=file.size_bytes,
        principal_id=actor.principal_id,
        at=actor.at,
    )
    with transaction(actor.tenant_id, limits=_LIMITS):
        taken = operations.take_batch(
            origin=origin, batch=batch, has_whole_days=means.has_whole_days
        )
        if taken is None:
            row = queries.find_ingestion(actor.tenant_id, digest)
            assert row is not None, "a file was taken before and is not known"
            return _already(row)
        _record(actor, origin, batch, taken, has_whole_days=means.has_whole_days)
    return _ingested(origin, batch, taken)


def map_sub_account(*, actor: Actor, sub_account_id: str, project_id: str | None) -> None:
    """Say which project a sub-account belongs to from the next file on; None forgets it."""
    with transaction(actor.tenant_id):
        before = operations.map_sub_account(
            tenant_id=actor.tenant_id, sub_account_id=sub_account_id, project_id=project_id
        )
        if before == project_id:
            return
        # Account ids can be longer than the audit log's column.
        subject = sha256_hex({"sub_account_id": sub_account_id})[:32]
        record_change(
            actor=actor,
            action="costs.map_sub_account",
            subject=("sub_account", subject),
            before=_mapping(sub_account_id, before),
            after=_mapping(sub_account_id, project_id),
        )


def find_sub_accounts(tenant_id: uuid.UUID) -> dict[str, str]:
    """Return the tenant's map from sub-accounts to projects."""
    with reading(tenant_id):
        return queries.read_sub_accounts(tenant_id)


def find_spending(
    tenant_id: uuid.UUID, *, project_id: str | None, as_of: datetime, after: int, limit: int
) -> list[Spending]:
    """Return what projects have spent in the month of a moment, up to that moment.

    :param project_id: one project, known or not; None for all that ever had a cost, in the order
        they were first seen.
    :param after: the place of the last project that was seen already.
    """
    until = as_of.astimezone(UTC).date()
    since = until - timedelta(days=HISTORY_DAYS - 1)
    with reading(tenant_id):
        if project_id is None:
            found = queries.find_spending(
                tenant_id, since=since, until=until, after=after, limit=limit
            )
        else:
            found = [queries.get_spending(tenant_id, project_id, since=since, until=until)]
    return [
        Spending(
            place=one.place,
            project_id=one.project_id,
            computed=build_context(
                _no_change(one.project_id),
                sum_up(
                    [DayCost(day.date, day.amount_usd, day.is_final) for day in one.days],
                    today=until,
                ),
                now=as_of,
                stale_after_days=0,
            ),
        )
        for one in found
    ]


def _no_change(project_id: str) -> GateInput:
    """Return a question about nothing: spending does not depend on what is asked."""
    request = GateRequest(
        source=TERRAFORM,
        project_id=project_id,
        environment="prod",
        action="",
        resource_reference="",
        cost=UNESTIMATED,
        actor="",
    )
    return normalise(request, environment="prod")


def _ingested(origin: IngestionOrigin, batch: CostBatch, taken: Taken) -> Ingestion:
    before = exact_sum(one.before.amount_usd for one in taken.restated)
    after = exact_sum(one.after.amount_usd for one in taken.restated)
    dates = [unit.key.date for unit in batch.units]
    return Ingestion(
        status=INGESTED,
        ingestion_id=origin.ingestion_id,
        content_sha256=origin.content_sha256,
        file_format=batch.format,
        rows=batch.rows,
        units_added=taken.units_added,
        units_restated=len(taken.restated),
        units_unchanged=taken.units_unchanged,
        units_absent=taken.units_absent,
        first_date=min(dates),
        last_date=max(dates),
        total_usd=_rounded(batch.total_usd),
        difference_usd=_rounded(EXACT.subtract(after, before)),
    )


def _already(row: CostIngestion) -> Ingestion:
    return Ingestion(
        status=ALREADY_INGESTED,
        ingestion_id=row.pk,
        content_sha256=row.content_sha256,
        file_format=row.file_format,
        rows=row.row_count,
        units_added=0,
        units_restated=0,
        units_unchanged=row.unit_count,
        units_absent=0,
        first_date=row.first_date,
        last_date=row.last_date,
        total_usd=_rounded(row.total_usd),
        difference_usd=ZERO,
    )


def _rounded(total: Decimal) -> Decimal:
    """Round a sum that may be beyond what one amount can be."""
    # Adding zero drops the sign of a negative zero.
    return EXACT.add(EXACT.quantize(total, ZERO), ZERO)


def _record(
    actor: Actor, origin: IngestionOrigin, batch: CostBatch, taken: Taken, *, has_whole_days: bool
) -> None:
    subject = ("cost_ingestion", str(origin.ingestion_id))
    record_change(
        actor=actor,
        action="costs.ingest",
        subject=subject,
        before=None,
        after={
            "content_sha256": origin.content_sha256,
            "format": batch.format,
            "rows": batch.rows,
            "total_usd": to_text(batch.total_usd),
            "units_added": taken.units_added,
            "units_restated": len(taken.restated),
            "units_unchanged": taken.units_unchanged,
            "units_absent": taken.units_absent,
            "has_whole_days": has_whole_days,
        },
    )
    if taken.restated:
        record_change(
            actor=actor,
            action="costs.restate",
            subject=subject,
            before=_show([one.before for one in taken.restated]),
            after=_show([one.after for one in taken.restated]),
        )


def _show(units: Sequence[Unit]) -> dict[str, Any]:
    """Return the sum of units and the first hundred of them as the audit log shows them."""
    return {
        "units": len(units),
        "total_usd": to_text(exact_sum(unit.amount_usd for unit in units)),
        "shown": [
            {
                "provider": unit.key.provider,
                "billing_account_id": unit.key.billing_account_id,
                "project_id": unit.key.project_id,
                "date": unit.key.date.isoformat(),
                "amount_usd": to_text(unit.amount_usd),
                "is_final": unit.is_final,
            }
            for unit in units[:_MOST_UNITS_SHOWN]
        ],
    }


def _mapping(sub_account_id: str, project_id: str | None) -> dict[str, Any] | None:
    if project_id is None:
        return None
    return {"sub_account_id": sub_account_id, "project_id": project_id}
