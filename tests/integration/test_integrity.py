"""``manage.py check_integrity``: every planted fault is found, and nothing else is."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from billing.costs.domain import DayAmount
from billing.costs.operations import record_daily_costs
from billing.models import QuotaReservation, Reservation
from billing.plans.domain import ENTERPRISE
from billing.quotas.domain import LLM_TOKENS, QUOTAS, MeteredRequest
from billing.quotas.operations import Origin, commit, release, reserve
from enforcement.integrity import reviews
from enforcement.integrity.queries import EXAMPLES, INVARIANTS, run_checks
from enforcement.models import LedgerEntry
from enforcement.reconciliation.operations import reconcile_overdue
from governance.audit.operations import Actor
from governance.incidents.operations import resolve_incident
from governance.incidents.queries import find_open_incidents, get_incident
from governance.models import AuditEntry, Incident
from tests.client import Api
from tests.conftest import owner_dsn
from tests.factories.headroom import Shop
from tests.factories.tenants import World, create_world, system_actor
from valdrix.jobs import tasks
from valdrix.kernel.db import reading, transaction
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import NotFound

IS_STORM = os.environ.get("VALDRIX_STORM") == "1"
DECISIONS = 10_000 if IS_STORM else 150
NOBODY = "00000000-0000-7000-8000-00000000dead"

TABLES = (
    "billing_account",
    "billing_account_month",
    "billing_charge",
    "billing_reservation",
    "billing_reservation_line",
    "billing_settlement",
    "billing_daily_cost",
    "billing_cost_history",
    "billing_quota_count",
    "billing_quota_reservation",
    "enforcement_decision",
    "enforcement_idempotency_key",
    "enforcement_ledger_entry",
    "enforcement_ledger_head",
    "governance_approval",
    "governance_review",
    "governance_approval_token",
    "governance_policy_version",
)

POLICY: dict[str, Any] = {
    "modes": {"terraform": {"default": "hard", "prod": "shadow"}},
    "thresholds": {
        "prod": {"require_approval_from_usd": "1000000.00"},
        "nonprod": {"require_approval_from_usd": "900.00"},
    },
}


# --- a tenant with one of everything ------------------------------------------------------------


def post(world: World, path: str, body: dict[str, Any]) -> Any:
    response = Api().post(path, body, key=world.admin.key)
    assert response.status_code == 200, response.content
    return response.json()


def reconcile(world: World, decision_id: str, actual: str) -> None:
    body = {"actual_monthly_delta_usd": actual}
    post(world, f"reservations/{decision_id}/reconcile", body)


def release_overdue(world: World, *decision_ids: str) -> None:
    """Let the overdue job release these reservations."""
    with transaction(world.id):
        rows = Reservation.objects.filter(tenant_id=world.id, decision_id__in=decision_ids)
        rows.update(due_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert reconcile_overdue(actor=system_actor(world.id))["inconsistent"] == 0


def arrange(world: World) -> dict[str, str]:
    """Commit one of every kind of decision and settlement; return the ids by name."""
    shop = Shop(world)
    shop.publish(**POLICY)
    ids = {
        "budget": shop.budget("3000.00"),
        "grant": shop.grant("reserved", "500.00", project_id="other"),
        "spare": shop.grant("emergency", "50.00"),
        "other_budget": shop.budget("100.00", project_id="other"),
    }

    def ask(name: str, amount: str, **members: Any) -> None:
        answer = shop.ask(amount, key=name, resource_reference=name, **members)
        ids[name] = answer["decision_id"]

    ask("plain", "100.00")
    ask("parent", "200.00")
    ask("child", "250.00", parent_decision_id=ids["parent"])
    ask("over", "100.00")
    ask("expired", "100.00")
    ask("confirmed", "100.00")
    ask("waiting", "950.00")
    ask("denied", "50000.00")
    ask("shadow", "100.00", environment="prod")
    ask("shadow_settled", "100.00", environment="prod")
    ask("credit_settled", "150.00", project_id="other")
    ask("credit", "120.00", project_id="other")
    reconcile(world, ids["over"], "140.00")
    reconcile(world, ids["shadow_settled"], "60.00")
    reconcile(world, ids["credit_settled"], "130.00")
    release_overdue(world, ids["expired"])
    post(world, f"reservations/{ids['confirmed']}/confirm", {})
    with transaction(world.id):
        record_costs(world, 2)
    ids |= meter(world)
    return {**ids, "tenant": str(world.id), "nobody": NOBODY}


def record_costs(world: World, days: int) -> None:
    today = timezone.now()
    record_daily_costs(
        tenant_id=world.id,
        days=[
            DayAmount(
                project_id="shop",
                date=(today - timedelta(days=n)).date(),
                amount_usd=Decimal(n),
            )
            for n in range(days)
        ],
        ingested_at=today,
    )


def meter(world: World) -> dict[str, str]:
    """Hold, commit, release and let expire metered use; return the reservations by their state."""
    now = timezone.now()

    def hold(units: int, person: int | None, at: datetime = now) -> str:
        made = reserve(
            origin=Origin(
                tenant_id=world.id, reservation_id=new_id(), principal_id="key:test", at=at
            ),
            wanted=MeteredRequest(meter=LLM_TOKENS, units=units, person_id=person),
            quota=QUOTAS[LLM_TOKENS][ENTERPRISE],
            is_suspended=False,
        )
        assert isinstance(made, QuotaReservation)
        return str(made.pk)

    owner, long_ago = world.owner.user_id, now - timedelta(days=2)
    ids = {"metered_expired": hold(7, owner, long_ago), "metered": hold(100, owner)}
    ids["metered_used"], ids["metered_back"] = hold(50, None), hold(20, world.member.user_id)
    of = {"tenant_id": world.id, "at": now}
    commit(reservation_id=uuid.UUID(ids["metered_used"]), used_units=80, **of)
    release(reservation_id=uuid.UUID(ids["metered_back"]), **of)
    return ids


# --- planting and healing, as the tables' owner ------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One fault: how it is planted, which other invariants it breaks, what stands in its way.

    :ivar lifts: constraints that refuse it, ``table.constraint``; append-only triggers are
        always off while planting.
    """

    sql: str
    also: str = ""
    lifts: tuple[str, ...] = ()


class Vault:
    """A tenant's rows, kept to be put back after each fault."""

    def __init__(self, cursor: psycopg.Cursor, tenant: str) -> None:
        self.cursor = cursor
        self.tenant = tenant
        self.lifted: list[tuple[str, str, str]] = []
        self.is_whole = True
        for table in TABLES:
            cursor.execute(f"CREATE TEMP TABLE saved_{table} AS SELECT * FROM {table} WHERE false")
            cursor.execute(
                f"INSERT INTO saved_{table} SELECT * FROM {table} WHERE tenant_id = %s", [tenant]
            )

    def plant(self, fault: Fault, ids: dict[str, str]) -> None:
        """Commit a fault; it must change something."""
        self.is_whole = False
        for name in fault.lifts:
            table, constraint = name.split(".")
            self.cursor.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s",
                [constraint],
            )
            (definition,) = self.cursor.fetchone()
            self.lifted.append((table, constraint, definition))
            self.cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        with self.open_tables():
            self.cursor.execute(fault.sql, ids)
            assert self.cursor.rowcount > 0, "the fault changed nothing"

    def heal(self) -> None:
        """Put all rows back and the constraints on again."""
        with self.open_tables():
            for table in TABLES:
                self.cursor.execute(f"DELETE FROM {table} WHERE tenant_id = %s", [self.tenant])
                self.cursor.execute(f"INSERT INTO {table} SELECT * FROM saved_{table}")
        while self.lifted:
            table, constraint, definition = self.lifted.pop()
            self.cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}")
        self.is_whole = True

    @contextmanager
    def open_tables(self) -> Iterator[None]:
        """Run a block in one transaction with the append-only triggers off."""
        with self.cursor.connection.transaction():
            self.cursor.execute(
                "SELECT tgrelid::regclass::text, tgname FROM pg_trigger"
                " WHERE NOT tgisinternal AND tgrelid::regclass::text = ANY(%s)",
                [list(TABLES)],
            )
            triggers = self.cursor.fetchall()
            assert triggers
            for table, name in triggers:
                self.cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
            yield
            # What is deferred must be checked before a table with pending events is altered.
            self.cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for table, name in triggers:
                self.cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


@dataclass(frozen=True)
class Arranged:
    """A tenant with one of everything, its ids by name, and its rows to put back."""

    world: World
    ids: dict[str, str]
    vault: Vault


@pytest.fixture(scope="module")
def kept(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Arranged]:
    """Arrange one tenant for all faults: each test puts back what it changed."""
    with django_db_blocker.unblock():
        world = create_world()
        ids = arrange(world)
        dsn = owner_dsn()
    with psycopg.connect(dsn, autocommit=True) as opened, opened.cursor() as cursor:
        yield Arranged(world, ids, Vault(cursor, ids["tenant"]))


@pytest.fixture
def arranged(kept: Arranged) -> Iterator[Arranged]:
    """Give the tenant to plant faults in; all rows are put back at the end."""
    yield kept
    if not kept.vault.is_whole:
        kept.vault.heal()


# --- the faults ---------------------------------------------------------------------------------

_ACCOUNT = "UPDATE billing_account SET {} WHERE id = %(budget)s"
_GRANT = "UPDATE billing_account SET {} WHERE id = %(grant)s"
_EXPOSURE = "UPDATE billing_account SET {} WHERE tenant_id = %(tenant)s AND kind = 'exposure'"
_MONTH = "UPDATE billing_account_month SET {} WHERE account_id = %(budget)s"


def on_charge(name: str, change: str) -> str:
    return (
        f"UPDATE billing_charge SET {change} WHERE id ="
        f" (SELECT charge_id FROM billing_reservation WHERE decision_id = %({name})s)"
    )


def on_reservation(name: str, change: str) -> str:
    return f"UPDATE billing_reservation SET {change} WHERE decision_id = %({name})s"


def on_line(name: str, kind: str, change: str) -> str:
    return (
        f"UPDATE billing_reservation_line SET {change}"
        f" WHERE reservation_id = %({name})s AND kind = '{kind}'"
    )


def on_entry(name: str, event: str, change: str) -> str:
    return (
        f"UPDATE enforcement_ledger_entry SET {change} WHERE tenant_id = %(tenant)s"
        f" AND decision_id = %({name})s AND event = '{event}'"
    )


def on_decision(name: str, change: str) -> str:
    return f"UPDATE enforcement_decision SET {change} WHERE id = %({name})s"


def on_settlement(name: str, change: str) -> str:
    return f"UPDATE billing_settlement SET {change} WHERE decision_id = %({name})s"


def on_count(holder: str, change: str) -> str:
    return (
        f"UPDATE billing_quota_count SET {change}"
        f" WHERE tenant_id = %(tenant)s AND holder = '{holder}' AND day ="
        " (SELECT day FROM billing_quota_reservation WHERE id = %(metered)s)"
    )


def on_metered(name: str, change: str) -> str:
    return f"UPDATE billing_quota_reservation SET {change} WHERE id = %({name})s"


_COUNTS = "billing_account.billing_account_amounts_are_not_negative"
_METERED_COUNTS = "billing_quota_count.billing_quota_count_is_not_negative"
_ADDS_UP = "billing_account.billing_account_grant_adds_up"
_OWN_PARTS = "charge_held_equals_reservations charge_own_equals_reservations"
_CLOSED_ALONE = (
    f"{_OWN_PARTS} charge_has_members family_held_equals_own_parts closed_reservation_is_on_ledger"
    " reservation_state_agrees_with_charge settled_family_has_no_pending_line"
)

FAULTS: dict[str, tuple[Fault, ...]] = {
    "grant_adds_up": (
        Fault(_GRANT.format("remaining_usd = remaining_usd + 1"), lifts=(_ADDS_UP,)),
        Fault(
            _GRANT.format("remaining_usd = -5, consumed_usd = consumed_usd + remaining_usd + 5"),
            also="grant_consumed_equals_posted_lines",
            lifts=(_COUNTS,),
        ),
    ),
    "grant_reserved_equals_pending_lines": (
        Fault(_GRANT.format("reserved_usd = reserved_usd + 1, remaining_usd = remaining_usd - 1")),
        Fault(
            on_line("credit", "reserved_credit", "state = 'voided'"),
            also="active_reservation_has_pending_lines",
        ),
    ),
    "grant_consumed_equals_posted_lines": (
        Fault(_GRANT.format("consumed_usd = consumed_usd + 1, remaining_usd = remaining_usd - 1")),
        Fault(on_line("credit_settled", "reserved_credit", "posted_usd = posted_usd - 1")),
    ),
    "account_pending_equals_lines": (
        Fault(_ACCOUNT.format("pending_usd = pending_usd + 1")),
        Fault(_EXPOSURE.format("pending_usd = pending_usd - 1")),
        Fault(_GRANT.format("pending_usd = 1")),
    ),
    "account_shadow_pending_equals_lines": (
        Fault(_ACCOUNT.format("shadow_pending_usd = shadow_pending_usd + 1")),
        Fault(_GRANT.format("shadow_pending_usd = 1")),
    ),
    "month_posted_equals_lines": (
        Fault(_MONTH.format("posted_usd = posted_usd + 1")),
        Fault(
            "INSERT INTO billing_account_month (account_id, tenant_id, month, posted_usd,"
            " overrun_usd, shadow_posted_usd)"
            " VALUES (%(spare)s, %(tenant)s, '2020-01-01', 5, 0, 0)"
        ),
        Fault(
            "DELETE FROM billing_account_month WHERE account_id = %(budget)s",
            also="month_overrun_equals_lines month_shadow_equals_lines",
        ),
    ),
    "month_overrun_equals_lines": (
        Fault(_MONTH.format("overrun_usd = overrun_usd - 1")),
        Fault(
            "UPDATE billing_reservation_line SET posted_usd = posted_usd + 1"
            " WHERE account_id = %(budget)s AND kind = 'overrun'"
        ),
    ),
    "month_shadow_equals_lines": (
        Fault(_MONTH.format("shadow_posted_usd = shadow_posted_usd + 1")),
        Fault(on_line("shadow_settled", "allocation", "posted_usd = posted_usd - 1")),
    ),
    "account_equals_ledger": (
        Fault(_ACCOUNT.format("monthly_limit_usd = monthly_limit_usd + 1000")),
        Fault("DELETE FROM billing_account WHERE id = %(spare)s"),
        Fault(
            "UPDATE enforcement_ledger_entry SET subject_id = %(nobody)s"
            " WHERE tenant_id = %(tenant)s AND subject_id = %(spare)s"
        ),
    ),
    "money_is_a_number": (
        Fault(
            on_settlement("over", "drift_usd = 'NaN'"),
            also="settlement_equals_lines",
        ),
        Fault(
            on_line("over", "allocation", "amount_usd = 'NaN'"),
            also="reservation_own_equals_lines",
            lifts=("billing_reservation_line.billing_line_is_a_number",),
        ),
        Fault(
            "WITH line AS (UPDATE billing_reservation_line SET amount_usd = 'NaN'"
            " WHERE reservation_id = %(shadow)s AND kind = 'allocation')"
            " UPDATE billing_account SET shadow_pending_usd = 'NaN' WHERE id = %(budget)s",
            also="reservation_own_equals_lines",
            lifts=("billing_reservation_line.billing_line_is_a_number", _COUNTS),
        ),
    ),
    "daily_cost_is_a_number": (
        Fault(
            "UPDATE billing_daily_cost SET amount_usd = 'NaN' WHERE tenant_id = %(tenant)s",
            also="cost_history_equals_days",
            lifts=("billing_daily_cost.billing_daily_cost_is_a_number",),
        ),
        Fault(
            "UPDATE billing_daily_cost SET amount_usd = 'NaN'"
            " WHERE tenant_id = %(tenant)s AND date = current_date",
            also="cost_history_equals_days",
            lifts=("billing_daily_cost.billing_daily_cost_is_a_number",),
        ),
    ),
    "cost_history_equals_days": (
        Fault("DELETE FROM billing_cost_history WHERE tenant_id = %(tenant)s"),
        Fault("DELETE FROM billing_daily_cost WHERE tenant_id = %(tenant)s"),
        Fault(
            "UPDATE billing_daily_cost SET is_final = NOT is_final WHERE tenant_id = %(tenant)s"
            " AND date = current_date"
        ),
        Fault(
            "UPDATE billing_cost_history SET days = days || ',2026-01-01 1.0000 final'"
            " WHERE tenant_id = %(tenant)s"
        ),
        Fault(
            "INSERT INTO billing_cost_history (tenant_id, project_id, month, days)"
            " VALUES (%(tenant)s, 'nobody', '2020-02-01', '2020-02-03 7.0000 final')"
        ),
    ),
    "charge_held_equals_reservations": (
        Fault(on_charge("plain", "held_usd = held_usd + 1")),
        Fault(on_charge("child", "held_usd = held_usd - 1")),
        Fault(on_charge("over", "held_usd = 0")),
        Fault(on_charge("expired", "held_usd = held_usd + 1")),
    ),
    "charge_own_equals_reservations": (
        Fault(on_charge("plain", "own_usd = own_usd + 1")),
        Fault(on_charge("credit_settled", "own_usd = own_usd - 1")),
    ),
    "charge_taken_equals_children": (
        Fault(on_charge("parent", "taken_usd = taken_usd - 1")),
        Fault(on_charge("plain", "taken_usd = 1")),
    ),
    "family_held_equals_own_parts": (
        Fault(on_charge("parent", "family_held_usd = family_held_usd + 1")),
        Fault(on_charge("child", "family_held_usd = 5")),
    ),
    "family_has_its_first_charge": (
        Fault(
            on_charge("child", "family_id = %(nobody)s"),
            also="family_held_equals_own_parts taken_part_has_parent",
        ),
        Fault(on_charge("child", "project_id = 'else'"), also="reservation_has_decision"),
    ),
    "family_settles_as_one": (
        Fault(
            on_charge("child", "state = 'settled'"),
            also=f"{_OWN_PARTS} charge_has_members reservation_state_agrees_with_charge"
            " settled_family_has_no_pending_line",
        ),
        Fault(
            on_charge("parent", "state = 'settled'"),
            also=f"{_OWN_PARTS} charge_has_members reservation_state_agrees_with_charge"
            " settled_family_has_no_pending_line family_held_equals_own_parts",
        ),
    ),
    "charge_has_members": (
        Fault(
            "INSERT INTO billing_charge (id, tenant_id, family_id, is_shadow, state, project_id,"
            " environment, action, resource_reference, change_fingerprint, change_is_computed,"
            " held_usd, own_usd, taken_usd, family_held_usd, opened_at)"
            " VALUES (%(nobody)s, %(tenant)s, %(nobody)s, false, 'active', 'shop', 'nonprod',"
            " 'a', 'r', 'f', false, 0, 0, 0, 0, now())"
        ),
        Fault(
            on_charge(
                "shadow", "state = 'released', held_usd = 0, own_usd = 0, family_held_usd = 0"
            ),
            also="reservation_state_agrees_with_charge settled_family_has_no_pending_line",
        ),
    ),
    "reservation_state_agrees_with_charge": (
        Fault(on_reservation("plain", "state = 'settled'"), also=_CLOSED_ALONE),
        Fault(
            on_reservation("credit_settled", "state = 'active'"),
            also=f"{_OWN_PARTS} charge_has_members family_held_equals_own_parts"
            " closed_reservation_is_on_ledger settlement_equals_lines",
        ),
    ),
    "reservation_own_equals_lines": (
        Fault(on_line("over", "exposure", "amount_usd = amount_usd + 1")),
        Fault(on_line("over", "allocation", "amount_usd = amount_usd + 1")),
        Fault(on_line("credit_settled", "reserved_credit", "amount_usd = amount_usd + 1")),
        Fault(
            on_reservation("plain", "own_usd = own_usd + 1"),
            also=f"{_OWN_PARTS} family_held_equals_own_parts reservation_is_on_ledger",
        ),
    ),
    "taken_part_has_parent": (
        Fault(
            on_reservation("child", "parent_charge_id = NULL"), also="charge_taken_equals_children"
        ),
        Fault(on_reservation("plain", "parent_charge_id = charge_id")),
        Fault(
            on_reservation(
                "child",
                "parent_charge_id = (SELECT charge_id FROM billing_reservation"
                " WHERE decision_id = %(plain)s)",
            ),
            also="charge_taken_equals_children",
        ),
    ),
    "settled_family_has_no_pending_line": (
        Fault(
            on_line("expired", "allocation", "state = 'pending'"),
            also="account_pending_equals_lines",
        ),
        Fault(
            on_line("shadow_settled", "exposure", "state = 'pending'"),
            also="account_shadow_pending_equals_lines line_posted_fits",
        ),
    ),
    "active_reservation_has_pending_lines": (
        Fault(
            on_line("plain", "exposure", "state = 'voided'"), also="account_pending_equals_lines"
        ),
        Fault(
            on_line("shadow", "allocation", "state = 'posted'"),
            also="account_shadow_pending_equals_lines",
        ),
    ),
    "line_posted_fits": (
        Fault(
            "WITH line AS (UPDATE billing_reservation_line SET posted_usd = amount_usd + 10"
            " WHERE reservation_id = %(over)s AND kind = 'allocation')"
            + _MONTH.format("posted_usd = posted_usd + 10")
        ),
        Fault(
            "WITH line AS (UPDATE billing_reservation_line SET posted_usd = 5"
            " WHERE reservation_id = %(expired)s AND kind = 'allocation')"
            + _MONTH.format("posted_usd = posted_usd + 5")
        ),
    ),
    "line_fits_its_account": (
        Fault(on_line("plain", "allocation", "month = '2020-01-01'")),
        Fault(on_line("credit", "reserved_credit", "kind = 'emergency_credit'")),
        Fault(on_charge("plain", "is_shadow = true"), also="reservation_is_on_ledger"),
    ),
    "settled_family_has_settlement": (
        Fault("DELETE FROM billing_settlement WHERE decision_id = %(over)s"),
        Fault(on_settlement("over", "trigger = 'auto_release'")),
        Fault(on_settlement("expired", "trigger = 'auto'"), also="settlement_equals_lines"),
    ),
    "settlement_equals_lines": (
        Fault(on_settlement("over", "drift_usd = drift_usd + 1")),
        Fault(on_settlement("credit_settled", "posted_usd = posted_usd - 1")),
        Fault(on_settlement("over", "actual_usd = actual_usd - 1, drift_usd = drift_usd - 1")),
    ),
    "reservation_has_decision": (
        Fault(
            "DELETE FROM enforcement_decision WHERE id = %(plain)s",
            also="ledger_entry_has_decision idempotency_key_has_decision",
        ),
        Fault(on_charge("plain", "project_id = 'else'")),
        Fault(on_charge("plain", "environment = 'prod'")),
    ),
    "holding_decision_has_reservation": (
        Fault(
            on_decision(
                "plain",
                "outcome_json = replace(outcome_json, '\"is_holding\":true',"
                " '\"is_holding\":false')",
            ),
            also="decision_is_what_ledger_says",
        ),
        Fault(
            "INSERT INTO billing_reservation (decision_id, tenant_id, charge_id, state, own_usd,"
            " taken_usd, month, reserved_at, due_at) SELECT %(denied)s, tenant_id, charge_id,"
            " state, 0, 0, month, reserved_at, due_at FROM billing_reservation"
            " WHERE decision_id = %(plain)s",
            also="reservation_is_on_ledger",
        ),
    ),
    "decision_has_ledger_entry": (
        Fault(on_entry("denied", "decision_made", "event = 'confirmed'")),
        Fault(
            on_entry("denied", "decision_made", "decision_id = %(plain)s"),
            also="decision_is_what_ledger_says",
        ),
    ),
    "decision_is_what_ledger_says": (
        Fault(on_decision("denied", "decision = 'ALLOW'")),
        Fault(on_decision("plain", "response_json = response_json || ' '")),
        Fault(on_decision("plain", "monthly_delta_usd = monthly_delta_usd + 1")),
        Fault(on_decision("plain", "outcome_json = outcome_json || ' '")),
    ),
    "ledger_entry_has_decision": (
        Fault(
            on_entry("denied", "decision_made", "decision_id = %(nobody)s"),
            also="decision_has_ledger_entry",
        ),
        Fault(
            on_entry("waiting", "approval_requested", "decision_id = %(nobody)s"),
        ),
    ),
    "reservation_is_on_ledger": (
        Fault(on_entry("plain", "reserved", "amount_usd = amount_usd + 1")),
        Fault(on_entry("plain", "reserved", "event = 'approval_joined'")),
    ),
    "closed_reservation_is_on_ledger": (
        Fault(on_entry("over", "reconciled", "event = 'released'")),
        Fault(on_entry("expired", "released", "event = 'approval_joined'")),
        Fault(
            on_entry("denied", "decision_made", "event = 'released'"),
            also="decision_has_ledger_entry",
        ),
    ),
    "confirmed_family_is_on_ledger": (
        Fault(on_charge("confirmed", "confirmed_at = NULL")),
        Fault(on_charge("plain", "confirmed_at = now()")),
    ),
    "ledger_is_gapless": (
        Fault("DELETE FROM enforcement_ledger_entry WHERE tenant_id = %(tenant)s AND sequence = 1"),
        Fault(
            "UPDATE enforcement_ledger_head SET sequence = sequence + 1"
            " WHERE tenant_id = %(tenant)s"
        ),
        Fault("DELETE FROM enforcement_ledger_head WHERE tenant_id = %(tenant)s"),
    ),
    "approval_has_decision": (
        Fault(
            "UPDATE governance_approval SET decision_id = %(nobody)s"
            " WHERE decision_id = %(waiting)s"
        ),
        Fault("UPDATE governance_approval SET project_id = 'else' WHERE decision_id = %(waiting)s"),
    ),
    "decision_has_its_approval": (
        Fault(
            "DELETE FROM governance_approval WHERE decision_id = %(waiting)s",
            also="approval_is_on_ledger",
        ),
        Fault(on_decision("waiting", "approval_request_id = NULL")),
    ),
    "pending_approval_is_not_settled": (
        Fault(
            "UPDATE governance_approval SET decision_id = %(over)s WHERE decision_id = %(waiting)s",
            also="approval_has_decision",
        ),
        Fault(
            on_reservation("waiting", "state = 'settled'"),
            also=(f"{_CLOSED_ALONE} reservation_state_agrees_with_charge"),
        ),
    ),
    "idempotency_key_has_decision": (
        Fault(
            "UPDATE enforcement_idempotency_key SET decision_id = %(nobody)s"
            " WHERE decision_id = %(plain)s"
        ),
        Fault(
            "UPDATE enforcement_idempotency_key SET request_fingerprint = 'x'"
            " WHERE decision_id = %(plain)s"
        ),
    ),
    "policy_versions_are_gapless": (
        Fault("DELETE FROM governance_policy_version WHERE tenant_id = %(tenant)s AND number = 1"),
        Fault(
            "UPDATE governance_policy_version SET number = 3"
            " WHERE tenant_id = %(tenant)s AND number = 2",
            also="decision_names_its_policy",
        ),
    ),
    "policy_is_what_was_published": (
        Fault(
            "UPDATE governance_policy_version SET canonical_json = canonical_json || ' '"
            " WHERE tenant_id = %(tenant)s AND number = 2"
        ),
        Fault(
            "UPDATE governance_policy_version SET sha256 = reverse(sha256)"
            " WHERE tenant_id = %(tenant)s AND number = 1"
        ),
    ),
    "decision_names_its_policy": (
        Fault(on_decision("plain", "policy_version = 99")),
        Fault(on_decision("plain", "policy_document_sha256 = reverse(policy_document_sha256)")),
    ),
    "quota_count_equals_reservations": (
        Fault(on_count("tenant", "reserved_units = reserved_units + 1")),
        Fault(on_count("system", "used_units = used_units - 1")),
        Fault("DELETE FROM billing_quota_count WHERE tenant_id = %(tenant)s AND used_units > 0"),
        Fault("DELETE FROM billing_quota_reservation WHERE id = %(metered)s"),
        Fault(on_metered("metered_used", "used_units = 81")),
        Fault(
            on_metered("metered_back", "state = 'reserved'"),
            also="quota_reservation_fits_its_state",
        ),
    ),
    "quota_holds_what_a_plan_allows": (
        Fault(
            on_count("system", "used_units = -1"),
            also="quota_count_equals_reservations",
            lifts=(_METERED_COUNTS,),
        ),
        Fault(
            "WITH held AS (UPDATE billing_quota_reservation SET units = 128001"
            " WHERE id = %(metered)s)"
            " UPDATE billing_quota_count SET reserved_units = 128001"
            " WHERE tenant_id = %(tenant)s AND reserved_units > 0"
        ),
        Fault(
            on_count("tenant", "reserved_units = 20000001"),
            also="quota_count_equals_reservations",
        ),
    ),
    "quota_reservation_fits_its_state": (
        Fault(on_metered("metered", "closed_at = now()")),
        Fault(on_metered("metered_back", "closed_at = NULL")),
        Fault(
            on_metered("metered_back", "used_units = 3"),
            lifts=("billing_quota_reservation.billing_quota_reservation_amounts_fit",),
        ),
        Fault(on_metered("metered_expired", "closed_at = reserved_at")),
        Fault(on_metered("metered_back", "reserved_at = reserved_at - interval '1 day'")),
        Fault(on_metered("metered_back", "holder = 'robot'")),
        Fault(on_metered("metered_back", "expires_at = reserved_at")),
    ),
}


def test_every_invariant_has_faults() -> None:
    """Those of approvals have theirs in test_review_integrity.py."""
    reviewed = {invariant.name for invariant in reviews.INVARIANTS}
    assert set(FAULTS) == {invariant.name for invariant in INVARIANTS} - reviewed
    assert len(INVARIANTS) == len(FAULTS) + len(reviewed)
    assert all(len(faults) >= 2 for faults in FAULTS.values())
    assert sum(len(faults) for faults in FAULTS.values()) >= 50


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_invariants_alone(arranged: Arranged, name: str) -> None:
    tenant, vault = arranged.world, arranged.vault
    assert violated(tenant) == set()
    for fault in FAULTS[name]:
        vault.plant(fault, arranged.ids)
        assert violated(tenant) == {name, *fault.also.split()}, fault.sql
        vault.heal()
    assert violated(tenant) == set()


def violated(world: World) -> set[str]:
    return {finding.invariant.name for finding in run_checks(world.id).violated}


# --- nothing is found where nothing is wrong ----------------------------------------------------


def live(shop: Shop, number: int) -> None:
    """Take one more decision, of one of many kinds, and see some of them to their end."""
    budget_of = ("shop", "other", "shared")[number % 3]
    amount = f"{(number * 37) % 90 + 1}.{number % 100:02}"
    members: dict[str, Any] = {"project_id": budget_of, "resource_reference": f"r{number}"}
    if number % 11 == 0:
        members["environment"] = "prod"
    if number % 13 == 0:
        amount = f"-{amount}"
    if number % 17 == 0:
        amount = "950.00"
    if number % 19 == 0:
        amount = "99999.00"
    if number % 5 == 0:
        members["run_id"] = f"run-{number // 15}"
        members["resource_reference"] = "same"
    answer = shop.ask(amount, key=f"k{number}", **members)
    decision_id = answer["decision_id"]
    if answer["decision"] not in {"ALLOW", "ALLOW_WITH_CREDITS"}:
        return
    if number % 7 == 1 and not amount.startswith("-"):
        shop.ask(
            f"{(number * 53) % 120 + 1}.00",
            key=f"c{number}",
            project_id=budget_of,
            environment=members.get("environment", "dev"),
            resource_reference=f"child of {number}",
            parent_decision_id=decision_id,
        )
    body = {"actual_monthly_delta_usd": f"{(number * 71) % 130 - 5}.50"}
    if number % 4 == 0:
        Api().post(f"reservations/{decision_id}/confirm", {}, key=shop.world.member.key)
    if number % 3 == 1:
        Api().post(f"reservations/{decision_id}/reconcile", body, key=shop.world.admin.key)


def test_mixed_decisions_and_settlements_have_no_false_violation(tenant: World) -> None:
    """With VALDRIX_STORM=1 over 10,000 decisions."""
    shop = Shop(tenant, **POLICY)
    for project in ("shop", "other", "shared"):
        shop.budget("2000.00" if not IS_STORM else "100000.00", project_id=project)
        shop.grant("reserved", "400.00", project_id=project)
    shop.grant("emergency", "300.00")
    for number in range(DECISIONS):
        live(shop, number)
        if number % (DECISIONS // 3) == DECISIONS // 4:
            with transaction(tenant.id):
                rows = Reservation.objects.filter(tenant_id=tenant.id, state="active")
                half = list(rows.order_by("decision_id").values_list("pk", flat=True)[::2])
                rows.filter(pk__in=half).update(due_at=datetime(2020, 1, 1, tzinfo=UTC))
            reconcile_overdue(actor=system_actor(tenant.id))
    with transaction(tenant.id):
        record_costs(tenant, 30)
    meter(tenant)

    began = time.monotonic()
    report = run_checks(tenant.id)
    took = time.monotonic() - began
    sys.stdout.write(f"\n{DECISIONS} decisions, {report.inspected} rows in {took:.2f} s\n")

    assert [(f.invariant.name, f.examples[:3]) for f in report.violated] == []
    inspected = {finding.invariant.name: finding.inspected for finding in report.findings}
    assert inspected["decision_has_ledger_entry"] >= DECISIONS
    # Nothing is approved here; that history is tests/integration/test_review_integrity.py's.
    of_reviews = {invariant.name for invariant in reviews.INVARIANTS}
    assert {name for name, rows in inspected.items() if rows == 0} <= of_reviews
    # The mix must have had everything in it, or the check above says little.
    with reading(tenant.id):
        states = set(
            Reservation.objects.filter(tenant_id=tenant.id).values_list("state", flat=True)
        )
        events = set(
            LedgerEntry.objects.filter(tenant_id=tenant.id).values_list("event", flat=True)
        )
        shared = Reservation.objects.filter(tenant_id=tenant.id, taken_usd__gt=0).count()
    assert states == {"active", "settled", "released"}
    assert {"reserved", "confirmed", "reconciled", "released", "approval_requested"} <= events
    assert shared > 0


def test_a_check_sees_its_own_tenant_only(
    tenant: World, other_tenant: World, owner_cursor: psycopg.Cursor
) -> None:
    for world in (tenant, other_tenant):
        Shop(world).budget("100.00")
    before = run_checks(other_tenant.id).inspected
    owner_cursor.execute(
        "UPDATE billing_account SET monthly_limit_usd = 5 WHERE tenant_id = %s", [tenant.id]
    )
    assert violated(tenant) == {"account_equals_ledger"}
    assert (violated(other_tenant), run_checks(other_tenant.id).inspected) == (set(), before)


# --- the command --------------------------------------------------------------------------------


def run(command: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(command, *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), err.getvalue() + str(error)
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture
def broken(tenant: World, owner_cursor: psycopg.Cursor) -> World:
    """Give a tenant with more wrong limits than are shown."""
    shop = Shop(tenant)
    for number in range(EXAMPLES + 5):
        shop.budget("100.00", project_id=f"p{number:02}")
    owner_cursor.execute(
        "UPDATE billing_account SET monthly_limit_usd = 7 WHERE tenant_id = %s", [tenant.id]
    )
    return tenant


def test_a_sound_tenant_is_told_row_by_row(tenant: World) -> None:
    Shop(tenant).budget("100.00")
    code, out, err = run("check_integrity", "--tenant", tenant.slug)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    inspected = run_checks(tenant.id).inspected
    assert lines[0] == f"{tenant.slug}: sound; {inspected} rows inspected"
    assert len(lines) == 2 + len(INVARIANTS)
    row = next(line.split() for line in lines if "account_equals_ledger" in line)
    assert row == ["account_equals_ledger", "1", "0"]
    with reading(tenant.id):
        assert find_open_incidents(tenant.id) == []


def test_a_violation_is_shown_and_opens_one_incident_and_repairs_nothing(broken: World) -> None:
    code, out, err = run("check_integrity", "--tenant", broken.slug)
    assert (code, err) == (1, f"violated: {broken.slug}")
    assert f"{broken.slug}: violated" in out
    assert out.count("expected 100.0000, found 7.0000") == 3
    assert f"and {EXAMPLES + 5 - 3} more" in out
    assert run("check_integrity", "--tenant", broken.slug)[0] == 1

    with reading(broken.id):
        (incident,) = find_open_incidents(broken.id, kind="integrity")
    assert (incident.subject, incident.occurrences) == ("account_equals_ledger", 2)
    detail = json.loads(incident.detail)
    assert (detail["violations"], len(detail["examples"])) == (EXAMPLES + 5, EXAMPLES)


def test_json_says_the_same(broken: World) -> None:
    code, out, _ = run("check_integrity", "--tenant", broken.slug, "--json")
    document = json.loads(out)
    assert (code, document["sound"]) == (1, False)
    (checked,) = document["tenants"]
    assert (checked["tenant"], checked["status"]) == (broken.slug, "violated")
    assert [one["invariant"] for one in checked["invariants"]] == [i.name for i in INVARIANTS]
    wrong = [one for one in checked["invariants"] if not one["holds"]]
    assert [one["invariant"] for one in wrong] == ["account_equals_ledger"]
    assert len(wrong[0]["examples"]) == EXAMPLES


def test_a_tenant_without_rows_fails_because_nothing_was_checked(tenant: World) -> None:
    code, out, err = run("check_integrity", "--tenant", tenant.slug)
    assert (code, err) == (1, "no row was inspected: nothing was checked")
    assert out == f"{tenant.slug}: empty; 0 rows inspected, so nothing was checked\n"
    assert json.loads(run("check_integrity", "--tenant", tenant.slug, "--json")[1]) == {
        "sound": False,
        "inspected": 0,
        "tenants": [
            {
                "tenant": tenant.slug,
                "tenant_id": str(tenant.id),
                "status": "empty",
                "inspected": 0,
                "invariants": [
                    {
                        "invariant": invariant.name,
                        "holds": True,
                        "inspected": 0,
                        "violations": 0,
                        "examples": [],
                    }
                    for invariant in INVARIANTS
                ],
            }
        ],
    }


def test_all_tenants_are_checked_and_empty_ones_named(
    broken: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [broken.id, other_tenant.id]
    module = "enforcement.management.commands.check_integrity.tenant_ids_for_job"
    monkeypatch.setattr(module, lambda job: ours)
    code, out, err = run("check_integrity", "--all")
    assert (code, err) == (1, f"violated: {broken.id}")
    assert f"{other_tenant.id}: empty; 0 rows inspected" in out
    assert out.splitlines()[-1].endswith("in 2 tenants: 0 sound, 1 violated, 1 empty")
    monkeypatch.setattr(module, lambda job: ours[1:])
    assert run("check_integrity", "--all")[::2] == (1, "no row was inspected: nothing was checked")
    monkeypatch.setattr(module, lambda job: [])
    assert run("check_integrity", "--all")[::2] == (1, "no row was inspected: nothing was checked")


@pytest.mark.parametrize("command", ["check_integrity", "reconcile_overdue"])
def test_an_unknown_tenant_or_no_scope_exits_2(database: None, command: str) -> None:
    code, out, err = run(command, "--tenant", "no-such-tenant")
    assert (code, out, err) == (2, "", "there is no tenant 'no-such-tenant'")
    for arguments in ((), ("--all", "--tenant", "x")):
        with pytest.raises(CommandError):
            call_command(command, *arguments)


def test_the_daily_job_fails_on_a_violation_and_goes_on(
    broken: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(other_tenant).budget("100.00")
    monkeypatch.setattr(tasks, "tenant_ids_for_job", lambda job: [broken.id, other_tenant.id])
    with pytest.raises(tasks.JobIncomplete, match="failed in 1 of 2 tenants"):
        tasks.check_all_integrity()
    rows = run_checks(other_tenant.id).inspected
    monkeypatch.setattr(tasks, "tenant_ids_for_job", lambda job: [other_tenant.id])
    assert tasks.check_all_integrity() == f"tenants=1 rows={rows} empty=0"
    with reading(broken.id):
        assert len(find_open_incidents(broken.id, kind="integrity")) == 1


# --- incidents ----------------------------------------------------------------------------------


def test_a_resolved_incident_opens_anew_when_it_is_seen_again(
    broken: World, other_tenant: World
) -> None:
    run("check_integrity", "--tenant", broken.slug)
    with reading(broken.id):
        (first,) = find_open_incidents(broken.id)
    actor = system_actor(broken.id)

    resolved = resolve_incident(actor=actor, incident_id=first.pk, reason="put right")
    again = resolve_incident(actor=actor, incident_id=first.pk, reason="once more")

    assert (resolved.state, resolved.resolved_at) == ("resolved", actor.at)
    assert again.resolved_at == actor.at
    with reading(broken.id):
        assert find_open_incidents(broken.id) == []
        written = AuditEntry.objects.filter(tenant_id=broken.id, action="incident.resolve")
        assert [(entry.object_id, entry.after["reason"]) for entry in written] == [
            (str(first.pk), "put right")
        ]
    run("check_integrity", "--tenant", broken.slug)
    with reading(broken.id):
        (second,) = find_open_incidents(broken.id)
        assert second.pk != first.pk
        assert get_incident(broken.id, first.pk).state == "resolved"
        assert Incident.objects.filter(tenant_id=broken.id).count() == 2
    stranger = system_actor(other_tenant.id)
    with pytest.raises(NotFound):
        resolve_incident(actor=stranger, incident_id=second.pk, reason="mine")
    with reading(other_tenant.id), pytest.raises(NotFound):
        get_incident(other_tenant.id, second.pk)


# --- what is overdue ----------------------------------------------------------------------------


def test_overdue_reservations_are_settled_by_hand(tenant: World) -> None:
    shop = Shop(tenant)
    budget = shop.budget("1000.00")
    kept, gone = shop.ask("100.00", key="a"), shop.ask("200.00", key="b")
    post(tenant, f"reservations/{kept['decision_id']}/confirm", {})
    nothing = f"{tenant.slug}: 0 posted, 0 released, 0 inconsistent\n"
    assert run("reconcile_overdue", "--tenant", tenant.slug) == (0, nothing, "")
    with transaction(tenant.id):
        Reservation.objects.filter(tenant_id=tenant.id).update(
            due_at=datetime(2020, 1, 1, tzinfo=UTC)
        )

    told = f"{tenant.slug}: 1 posted, 1 released, 0 inconsistent\n"
    assert run("reconcile_overdue", "--tenant", tenant.slug) == (0, told, "")

    assert run("reconcile_overdue", "--tenant", tenant.slug)[1] == nothing
    state = shop.budget_state(budget)
    assert (state["posted_usd"], state["pending_usd"]) == (100, 0)
    with reading(tenant.id):
        entry = LedgerEntry.objects.get(tenant_id=tenant.id, event="released")
    assert (entry.principal, str(entry.decision_id)) == (
        "system:reconcile-overdue",
        gone["decision_id"],
    )
    assert violated(tenant) == set()


def test_a_limit_stops_settling_by_hand(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("1000.00")
    for number in range(5):
        shop.ask("10.00", key=f"k{number}")
    with transaction(tenant.id):
        Reservation.objects.filter(tenant_id=tenant.id).update(
            due_at=datetime(2020, 1, 1, tzinfo=UTC)
        )

    code, told, wrong = run("reconcile_overdue", "--tenant", tenant.slug, "--limit", "2")

    assert (code, wrong) == (0, "")
    assert told == (
        f"{tenant.slug}: 0 posted, 2 released, 0 inconsistent\nstopped at the limit of 2\n"
    )
    assert "3 released" in run("reconcile_overdue", "--tenant", tenant.slug, "--limit", "9")[1]
    for wrongly in ("0", "-1", "many"):
        with pytest.raises(CommandError) as refusal:
            call_command("reconcile_overdue", "--tenant", tenant.slug, "--limit", wrongly)
        assert "--limit" in str(refusal.value)
    assert violated(tenant) == set()


def test_what_does_not_add_up_is_left_alone_and_told(
    tenant: World, other_tenant: World, owner_cursor: psycopg.Cursor, monkeypatch: Any
) -> None:
    for world in (tenant, other_tenant):
        shop = Shop(world)
        shop.budget("1000.00")
        shop.ask("100.00")
        with transaction(world.id):
            Reservation.objects.filter(tenant_id=world.id).update(
                due_at=datetime(2020, 1, 1, tzinfo=UTC)
            )
    owner_cursor.execute(
        "UPDATE billing_reservation_line SET amount_usd = 99"
        " WHERE tenant_id = %s AND kind = 'exposure'",
        [tenant.id],
    )
    module = "enforcement.management.commands.reconcile_overdue"
    monkeypatch.setattr(f"{module}.tenant_ids_for_job", lambda job: [tenant.id, other_tenant.id])

    code, out, err = run("reconcile_overdue", "--all")

    assert code == 1
    assert out.splitlines() == [
        f"{tenant.id}: 0 posted, 0 released, 1 inconsistent",
        f"{other_tenant.id}: 0 posted, 1 released, 0 inconsistent",
        "2 tenants: 0 posted, 1 released, 1 inconsistent",
    ]
    assert "1 do not add up" in err


def test_a_tenant_whose_turn_fails_stops_no_other(
    tenant: World, other_tenant: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "enforcement.management.commands.reconcile_overdue"

    def work(*, actor: Actor, **options: Any) -> dict[str, int]:
        if actor.tenant_id == tenant.id:
            raise RuntimeError("no such luck")
        return {"posted": 2, "released": 0, "inconsistent": 0}

    monkeypatch.setattr(f"{module}.tenant_ids_for_job", lambda job: [tenant.id, other_tenant.id])
    monkeypatch.setattr(f"{module}.reconcile_overdue", work)
    code, out, err = run("reconcile_overdue", "--all")
    assert code == 1
    assert f"{tenant.id}: failed: RuntimeError: no such luck" in err
    assert out.splitlines()[-1] == "2 tenants: 2 posted, 0 released, 0 inconsistent"


# --- what the documents say ---------------------------------------------------------------------

DOCS = Path(__file__).parent.parent.parent / "docs"
_BUDGET = ("posted_usd", "pending_usd", "overrun_usd", "headroom_usd")
_GRANT_PARTS = ("remaining_amount_usd", "reserved_amount_usd", "consumed_amount_usd")


def test_the_document_lists_every_invariant() -> None:
    text = (DOCS / "operations" / "integrity.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(one.name, one.sentence) for one in INVARIANTS]


def test_the_worked_example_is_true(tenant: World) -> None:
    text = (DOCS / "reservations.md").read_text()
    (block,) = re.findall(r"```json reservation-example\n(.*?)```", text, re.DOTALL)
    shop = Shop(tenant)
    budget, grant = shop.budget("100.00"), shop.grant("reserved", "50.00")
    decisions: dict[str, str] = {}
    steps = json.loads(block)
    for number, step in enumerate(steps):
        take_step(tenant, shop, step, decisions)
        kept = shop.budget_state(budget), shop.grant_state(grant)
        assert [kept[0][name] for name in _BUDGET] == list(map(Decimal, step["budget"])), number
        assert [kept[1][name] for name in _GRANT_PARTS] == list(map(Decimal, step["grant"])), number
        assert violated(tenant) == set(), number
    assert len(steps) == 11


def take_step(world: World, shop: Shop, step: dict[str, Any], decisions: dict[str, str]) -> None:
    """Do one step of the example and compare its own answer."""
    if "ask" in step:
        name = step["ask"]
        parent = {"parent_decision_id": decisions[step["parent"]]} if "parent" in step else {}
        answer = shop.ask(step["amount"], key=name, resource_reference=name, **parent)
        decisions[name] = answer["decision_id"]
        with reading(world.id):
            row = Reservation.objects.get(decision_id=answer["decision_id"])
        assert (str(row.own_usd), str(row.taken_usd)) == (step["own"], step["taken"])
    elif "confirm" in step:
        post(world, f"reservations/{decisions[step['confirm']]}/confirm", {})
    elif "reconcile" in step:
        path = f"reservations/{decisions[step['reconcile']]}/reconcile"
        answer = post(world, path, {"actual_monthly_delta_usd": step["actual"]})
        assert {name: answer[name] for name in step["answer"]} == step["answer"]
    else:
        with transaction(world.id):
            rows = Reservation.objects.filter(tenant_id=world.id, state="active")
            rows.update(due_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert reconcile_overdue(actor=system_actor(world.id)) == step["overdue"]
