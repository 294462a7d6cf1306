"""Checks that call a function refuse what their models say, by the same name."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, models

from billing.models import Account, Charge, Reservation, ReservationLine
from tests.factories.rows import plant_rows
from tests.factories.tenants import World
from valdrix.kernel.db import reading, transaction

_AMOUNTS = (
    *(None, Decimal(0), Decimal("0.0001"), Decimal("-0.0001"), Decimal(5)),
    *(Decimal(10**13), Decimal(10**13) - Decimal("0.0001"), Decimal(-(10**13))),
)
_TEXTS = (
    *(None, "", "x", "budget", "grant", "exposure", "run_rate", "actuals", "reserved", "emergency"),
    *("active", "settled", "released", "pending", "posted", "voided", "allocation", "overrun"),
    *("reserved_credit", "emergency_credit"),
)
_VALUES: dict[type[models.Field[Any, Any]], tuple[Any, ...]] = {
    models.DecimalField: _AMOUNTS,
    models.CharField: _TEXTS,
    models.BooleanField: (True, False),
    models.UUIDField: (None, UUID(int=1)),
}
_ROWS = 40


def _planned() -> list[tuple[type[models.Model], models.CheckConstraint, list[str]]]:
    """Return the checks that call a function, with the columns that it takes."""
    found = []
    with connection.cursor() as cursor:
        for model in (Account, Charge, Reservation, ReservationLine):
            for check in model._meta.constraints:
                cursor.execute("SELECT proargnames FROM pg_proc WHERE proname = %s", [check.name])
                row = cursor.fetchone()
                if row is not None:
                    assert isinstance(check, models.CheckConstraint)
                    found.append((model, check, row[0]))
    return found


def test_the_functions_judge_as_the_models_do() -> None:
    chance = random.Random(20261127)
    planned = _planned()
    assert len(planned) == 11
    for model, check, columns in planned:
        verdicts = set()
        for _ in range(_ROWS):
            row = {one: chance.choice(_VALUES[type(model._meta.get_field(one))]) for one in columns}
            # Rows that differ in one fact from one that fits are rare among rows of mere chance.
            row |= chance.choice(_FITTING.get(check.name, ({},))) | {
                one: row[one] for one in chance.sample(columns, 1)
            }
            with connection.cursor() as cursor:
                marks = ", ".join(["%s"] * len(columns))
                cursor.execute(f"SELECT coalesce({check.name}({marks}), true)", list(row.values()))
                (verdict,) = cursor.fetchone()
            said = {
                one: models.Value(value, output_field=model._meta.get_field(one))
                for one, value in row.items()
            }
            assert verdict == check.condition.check(said), (check.name, row)
            verdicts.add(verdict)
        assert verdicts == {True, False}, check.name


_FITTING: dict[str, tuple[dict[str, Any], ...]] = {
    "billing_account_amounts_are_not_negative": (
        {
            name: Decimal(1)
            for name in (
                *("pending_usd", "shadow_pending_usd", "total_usd"),
                *("remaining_usd", "reserved_usd", "consumed_usd"),
            )
        },
    ),
    "billing_account_shape_fits_its_kind": (
        {
            "kind": "budget",
            "project_id": "shop",
            "monthly_limit_usd": Decimal(5),
            "basis": "actuals",
            "pool": None,
            "total_usd": Decimal(0),
        },
        {
            "kind": "grant",
            "project_id": None,
            "monthly_limit_usd": None,
            "basis": "run_rate",
            "pool": "reserved",
            "total_usd": Decimal(5),
        },
        {
            "kind": "exposure",
            "project_id": None,
            "monthly_limit_usd": None,
            "basis": "run_rate",
            "pool": None,
            "total_usd": Decimal(0),
        },
    ),
}
"""Rows that pass the checks of many columns."""


def test_a_check_refuses_by_its_name(tenant: World) -> None:
    plant_rows(tenant)
    with (
        pytest.raises(IntegrityError, match="billing_line_kind_is_known"),
        transaction(tenant.id),
    ):
        ReservationLine.objects.filter(tenant_id=tenant.id).update(kind="purse")

    with reading(tenant.id):
        lines = ReservationLine.objects.filter(tenant_id=tenant.id)
        assert lines.exists()
        assert not lines.filter(kind="purse").exists()
