"""The jobs' functions: each goes through all tenants, or through what belongs to none.

What is found in one tenant, or goes wrong there, stops no other tenant's turn.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from billing.alerts.operations import raise_budget_alerts
from enforcement.gate.ask import TimeBudget
from enforcement.integrity.operations import check_integrity
from enforcement.ledger.keeping import find_kept_faults, keep_checkpoint, list_kept
from enforcement.ledger.verification import verify_ledger
from enforcement.notifications.operations import remind, spread_alerts, spread_ledger
from enforcement.notifications.sending import send_due
from enforcement.reconciliation.expiry import expire_approvals
from enforcement.reconciliation.operations import reconcile_overdue
from enforcement.replay.operations import find_open, run_simulation
from enforcement.run_tasks.working import Worker, work_due
from governance.audit.operations import Actor
from governance.signin.operations import sweep_slots
from telemetry.retention.operations import delete_old
from valdrix.jobs.turns import Crew, Turn
from valdrix.kernel import outbound
from valdrix.kernel.db import tenant_ids_for_job

log = logging.getLogger("valdrix.jobs")


_run_task_crew: Final = Crew()
_notification_crew: Final = Crew()


class JobIncomplete(Exception):
    """A job could not do its work in some tenants; the log says in which, and why."""


class LedgerBroken(Exception):
    """A tenant's ledger does not verify."""


class IntegrityViolated(Exception):
    """Invariants of a tenant do not hold; each has an incident."""


def verify_ledgers() -> str:
    """Recompute every tenant's ledger and return how much was inspected.

    :raises JobIncomplete: when one of them does not hold.
    """
    return _for_each_tenant("verify-ledgers", _verify)


def keep_checkpoints() -> str:
    """Sign every ledger's head into a file outside the database, and check the files kept before.

    :raises JobIncomplete: when one cannot be written, or a ledger belies one that was kept.
    """
    if settings.LEDGER_CHECKPOINT_DIR is None:
        return "no ENFORCEMENT_CHECKPOINT_DIR is configured: nothing is kept"
    if settings.EXPORT_SIGNING_KEY is None:
        return "no ENFORCEMENT_EXPORT_SIGNING_KEY is configured: nothing can be signed"
    return _for_each_tenant("keep-checkpoints", _keep)


def run_simulations() -> str:
    """Run the simulations that wait in any tenant; each has one runner.

    :raises JobIncomplete: when that failed in a tenant.
    """
    return _for_each_tenant("run-simulations", _simulate)


def reconcile_all_overdue() -> str:
    """Settle every tenant's reservations that are past their time (SPEC 5).

    :raises JobIncomplete: when that failed in a tenant.
    """
    return _for_each_tenant("reconcile-overdue", _reconcile)


def expire_all_approvals() -> str:
    """End every tenant's approvals whose time is over, and release what they held (SPEC 6).

    :raises JobIncomplete: when that failed in a tenant.
    """
    return _for_each_tenant("expire-approvals", _expire)


def raise_all_budget_alerts() -> str:
    """Write the alerts that every tenant's budgets have come to (SPEC 5).

    :raises JobIncomplete: when that failed in a tenant.
    """
    return _for_each_tenant("budget-alerts", _alert)


def check_all_integrity() -> str:
    """Check every tenant's invariants and return how many rows were inspected (SPEC 5, 16).

    :raises JobIncomplete: when an invariant does not hold in a tenant.
    """
    return _for_each_tenant("check-integrity", _check)


def clean_telemetry() -> str:
    """Delete telemetry that is past its time; what is locked waits for the next run.

    :raises psycopg.Error: when the store failed; the next run goes on there.
    """
    if settings.TELEMETRY_STORE is None:
        return "telemetry has no store"
    before = timezone.now() - timedelta(days=settings.TELEMETRY_RETENTION_DAYS)
    done = delete_old(tenant_ids=tenant_ids_for_job("clean-telemetry"), before=before)
    return f"deleted={done.deleted} batches={done.batches} delayed={done.delayed or 'no'}"


def work_run_tasks() -> str:
    """Decide and answer the calls of run tasks that are due, a few tenants at a time (SPEC 8).

    A tenant whose platform is slow holds back no other one: its turn goes on beside the next runs.

    :raises JobIncomplete: when that failed in a tenant.
    """
    worker = Worker(
        clock=timezone.now,
        send=outbound.send,
        hosts=settings.RUN_TASK_HOSTS,
        base_url=settings.PUBLIC_URL,
        budget=TimeBudget(
            total_ms=settings.GATE_TIME_BUDGET_MS, lock_ms=settings.GATE_LOCK_TIMEOUT_MS
        ),
    )
    return _for_each_tenant(
        "work-run-tasks",
        lambda tenant_id: work_due(worker=worker, tenant_id=tenant_id),
        crew=_run_task_crew,
    )


def clear_sessions() -> None:
    """Delete the console's sessions that have expired."""
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore
    store.clear_expired()


def send_notifications() -> str:
    """Tell every tenant's people what happened, and try again what failed (SPEC 6).

    A tenant whose webhook is slow holds back no other one: its turn goes on beside the next runs.

    :raises JobIncomplete: when that failed in a tenant; a delivery that fails is no such failure.
    """
    return _for_each_tenant("send-notifications", _notify, crew=_notification_crew)


def clear_sign_ins() -> str:
    """Delete counts of failed sign-ins that are forgotten and return how many there were."""
    return f"slots={sweep_slots(now=timezone.now())}"


def _verify(tenant_id: uuid.UUID) -> dict[str, int]:
    result = verify_ledger(tenant_id)
    if result.fault is not None:
        raise LedgerBroken(f"broken at sequence {result.fault.sequence}: {result.fault.reason}")
    return {"entries": result.entries}


def _simulate(tenant_id: uuid.UUID) -> dict[str, int]:
    waiting = find_open(tenant_id, now=timezone.now())
    ran = [
        run_simulation(tenant_id=tenant_id, simulation_id=one, clock=timezone.now)
        for one in waiting
    ]
    return {"ran": sum(ran)}


def _keep(tenant_id: uuid.UUID) -> dict[str, int]:
    directory, key = settings.LEDGER_CHECKPOINT_DIR, settings.EXPORT_SIGNING_KEY
    assert directory is not None
    assert key is not None
    keys = [key.public_text, *settings.EXPORT_RETIRED_PUBLIC_KEYS]
    # Before the new head is signed: a ledger that was rewritten must not be vouched for.
    faults = list(find_kept_faults(tenant_id, directory=directory, public_keys=keys))
    if faults:
        raise LedgerBroken("; ".join(faults))
    kept = keep_checkpoint(tenant_id, directory=directory, key=key, at=timezone.now())
    return {
        "kept": int(kept is not None),
        "files": len(list_kept(tenant_id, directory=directory)),
    }


def _check(tenant_id: uuid.UUID) -> dict[str, int]:
    report = check_integrity(tenant_id=tenant_id, at=timezone.now())
    if report.violated:
        names = ", ".join(finding.invariant.name for finding in report.violated)
        raise IntegrityViolated(f"{report.inspected} rows inspected; violated: {names}")
    return {"rows": report.inspected, "empty": int(report.status == "empty")}


def _reconcile(tenant_id: uuid.UUID) -> dict[str, int]:
    actor = Actor(
        tenant_id=tenant_id,
        principal_id="system:reconcile-overdue",
        address=None,
        at=timezone.now(),
    )
    return reconcile_overdue(actor=actor)


def _expire(tenant_id: uuid.UUID) -> dict[str, int]:
    actor = Actor(
        tenant_id=tenant_id, principal_id="system:expire-approvals", address=None, at=timezone.now()
    )
    return expire_approvals(actor=actor)


def _alert(tenant_id: uuid.UUID) -> dict[str, int]:
    return {"raised": raise_budget_alerts(tenant_id, at=timezone.now())}


def _notify(tenant_id: uuid.UUID) -> dict[str, int]:
    now = timezone.now()
    notices = spread_ledger(tenant_id=tenant_id, now=now)
    notices += spread_alerts(tenant_id=tenant_id, now=now)
    notices += remind(tenant_id=tenant_id, now=now)
    return {"notices": notices, **send_due(tenant_id, clock=timezone.now)}


def _for_each_tenant(
    job: str, work: Callable[[uuid.UUID], dict[str, int]], *, crew: Crew | None = None
) -> str:
    """Do a job's work in every tenant and return its counts, added up.

    :param crew: takes the turns where they wait for systems of others; else one follows another.
    :raises JobIncomplete: when a tenant's turn raised; each is logged with its traceback.
    """
    tenants = tenant_ids_for_job(job)
    counts: Counter[str] = Counter()
    turns = [Turn(job, work, tenant_id) for tenant_id in tenants]
    done = [turn.take() for turn in turns] if crew is None else crew.take(turns)
    failed = done.count(None)
    for found in done:
        counts.update(found or {})
    if failed:
        raise JobIncomplete(f"failed in {failed} of {len(tenants)} tenants")
    said = " ".join(f"{name}={count}" for name, count in counts.items())
    return f"tenants={len(tenants)} {said}".strip()
