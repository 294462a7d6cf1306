"""Invariants of metered use: a day's kept counts are what its reservations say (SPEC 13)."""

from __future__ import annotations

from typing import Final

from billing.quotas.domain import QUOTAS, SYSTEM, TENANT_HOLDER, USER
from enforcement.integrity.domain import Invariant

# Each reservation counts twice: with the tenant, and with whoever asked.
_COUNT_EQUALS_RESERVATIONS: Final = f"""
WITH said AS (
    SELECT r.meter, r.day, h.holder,
           coalesce(sum(r.units) FILTER (WHERE r.state = 'reserved'), 0) AS held,
           coalesce(sum(r.used_units) FILTER (WHERE r.state = 'committed'), 0) AS used
      FROM billing_quota_reservation r, LATERAL (VALUES ('{TENANT_HOLDER}'), (r.holder)) AS h (holder)
     WHERE r.tenant_id = %(tenant)s GROUP BY r.meter, r.day, h.holder
), kept AS (SELECT * FROM billing_quota_count WHERE tenant_id = %(tenant)s)
SELECT concat_ws(' ', meter, day, holder) AS id,
       coalesce(s.held, 0) || ' held, ' || coalesce(s.used, 0) || ' used' AS expected,
       coalesce(k.reserved_units, 0) || ' held, ' || coalesce(k.used_units, 0) || ' used' AS found
  FROM kept k FULL JOIN said s USING (meter, day, holder)
"""  # noqa: S608 - constants
_WIDEST: Final = ", ".join(
    str(
        (
            meter,
            max(one.tenant_daily for one in tiers.values()),
            max(one.system_daily for one in tiers.values()),
            max(one.user_daily for one in tiers.values()),
            max(one.request_units for one in tiers.values()),
        )
    )
    for meter, tiers in QUOTAS.items()
)
"""By meter, what the widest tier gives. Which one a tenant had when it reserved is not kept."""
# What was used is not bounded: it is counted though it was more than was held.
_HOLDS_ARE_WITHIN: Final = f"""
WITH widest (meter, tenant_daily, system_daily, user_daily, request_units) AS (VALUES {_WIDEST}),
held (id, meter, units, least, most) AS (
    SELECT concat_ws(' ', c.meter, c.day, c.holder), c.meter, c.reserved_units,
           least(0, c.used_units),
           CASE c.holder WHEN '{TENANT_HOLDER}' THEN w.tenant_daily
                         WHEN '{SYSTEM}' THEN w.system_daily ELSE w.user_daily END
      FROM billing_quota_count c LEFT JOIN widest w USING (meter) WHERE c.tenant_id = %(tenant)s
    UNION ALL
    SELECT r.id::text, r.meter, r.units, 1, w.request_units
      FROM billing_quota_reservation r LEFT JOIN widest w USING (meter)
     WHERE r.tenant_id = %(tenant)s AND r.state = 'reserved'
)
SELECT id, 'within' AS expected,
       CASE WHEN least < 0 THEN 'used below zero'
            WHEN units >= least AND units <= most THEN 'within'
            ELSE units || ' of ' || coalesce(most, 0) END AS found
  FROM held
"""  # noqa: S608 - constants
_FITS_ITS_STATE: Final = f"""
SELECT id, 'fits' AS expected,
       CASE WHEN holder <> '{SYSTEM}' AND holder !~ '^{USER}:[0-9]+$' THEN 'of nobody'
            WHEN day <> (reserved_at AT TIME ZONE 'UTC')::date THEN 'of another day'
            WHEN expires_at <= reserved_at THEN 'over before it began'
            WHEN (state = 'reserved') <> (closed_at IS NULL) THEN 'closed and not closed'
            WHEN (state = 'committed') <> (used_units IS NOT NULL) THEN 'used and not committed'
            WHEN used_units < 0 THEN 'used below zero'
            WHEN state = 'expired' AND closed_at < expires_at THEN 'expired too early'
            ELSE 'fits' END AS found
  FROM billing_quota_reservation WHERE tenant_id = %(tenant)s
"""  # noqa: S608 - constants

INVARIANTS: Final = (
    Invariant(
        "quota_count_equals_reservations",
        "What a day's count of metered use holds is what open reservations hold, and what it used is"
        " what committed ones used: the tenant's of all, each other one of its own.",
        _COUNT_EQUALS_RESERVATIONS,
    ),
    Invariant(
        "quota_holds_what_a_plan_allows",
        "No count of a day and no open reservation holds more than the widest plan allows, and no"
        " count is below zero.",
        _HOLDS_ARE_WITHIN,
    ),
    Invariant(
        "quota_reservation_fits_its_state",
        "A reservation of metered use is a person's or the system's, of the day it was made on, open"
        " when and only when it was not closed, and says what was used when and only when committed.",
        _FITS_ITS_STATE,
    ),
)
