"""Reads of policies and forced modes."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection

from governance.policies.document import canonical_policy, parse_policy
from governance.policies.domain import SCHEMA_VERSION
from governance.policies.governing import (
    NO_VERSION,
    ForcedModeState,
    GoverningPolicy,
    LivePolicy,
)
from governance.policies.models import PolicyVersion
from governance.tenants.models import Tenant
from valdrix.kernel import strict_json
from valdrix.kernel.db import read_at_once, transaction_required
from valdrix.kernel.problems import NotFound
from valdrix.kernel.rows import RowsOf
from valdrix.kernel.structs import json_reader

_REMEMBERED_TENANTS: Final = 512

_READ_GOVERNING: Final = """
SELECT number, sha256, schema_version, canonical_json, forced_modes
  FROM governance_read_policy(%s, %s, %s)
"""


class _Memory:
    """The policy that each tenant was last seen with, parsed; bounded, least recent out first.

    What is remembered is used only where the database still names the same SHA-256, so that
    it saves the transfer and the parsing of a document, and can never be stale.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[uuid.UUID, LivePolicy] = OrderedDict()

    def find(self, tenant_id: uuid.UUID) -> LivePolicy | None:
        with self._lock:
            found = self._kept.get(tenant_id)
            if found is not None:
                self._kept.move_to_end(tenant_id)
            return found

    def keep(self, tenant_id: uuid.UUID, live: LivePolicy) -> None:
        with self._lock:
            self._kept[tenant_id] = live
            self._kept.move_to_end(tenant_id)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


_memory: Final = _Memory(size=_REMEMBERED_TENANTS)
_EMPTY: Final = LivePolicy(
    version=NO_VERSION,
    sha256=canonical_policy({}).sha256,
    schema_version=SCHEMA_VERSION,
    policy=parse_policy({}),
)


def read_governing_policy(tenant_id: uuid.UUID, now: datetime) -> GoverningPolicy:
    """Return the live policy and the modes forced at a moment, in one round trip.

    A tenant that has published nothing is governed by the empty policy, the strictest, as
    version 0.

    :raises NotInTransaction: outside a transaction.
    :raises InvalidPolicy: when the stored document no longer parses.
    """
    return _governing(*_read(tenant_id, now))


def take_policy(
    tenant_id: uuid.UUID, row: Sequence[Any], *, known: LivePolicy | GoverningPolicy | None
) -> GoverningPolicy:
    """Return what governs a tenant by what ``governance_read_policy`` returned.

    :raises InvalidPolicy: when the stored document does not parse.
    """
    return _governing(*_take(tenant_id, row, known))


def _governing(live: LivePolicy, forced_modes: tuple[ForcedModeState, ...]) -> GoverningPolicy:
    return GoverningPolicy(
        version=live.version,
        sha256=live.sha256,
        schema_version=live.schema_version,
        policy=live.policy,
        forced_modes=forced_modes,
    )


def read_live_policy(tenant_id: uuid.UUID) -> LivePolicy:
    """Return the newest published policy, or the empty one as version 0.

    :raises NotInTransaction: outside a transaction.
    :raises InvalidPolicy: when the stored document no longer parses.
    """
    return _read(tenant_id, None)[0]


def find_forced_modes(tenant_id: uuid.UUID, now: datetime) -> tuple[ForcedModeState, ...]:
    """Return the modes that are forced at a moment, oldest first.

    :raises NotInTransaction: outside a transaction.
    """
    return _read(tenant_id, now)[1]


def _read(
    tenant_id: uuid.UUID, now: datetime | None
) -> tuple[LivePolicy, tuple[ForcedModeState, ...]]:
    transaction_required()
    known = _memory.find(tenant_id)
    with connection.cursor() as cursor:
        known_sha256 = None if known is None else known.sha256
        cursor.execute(_READ_GOVERNING, [tenant_id, now, known_sha256])
        return _take(tenant_id, cursor.fetchone(), known)


def _take(
    tenant_id: uuid.UUID, row: Sequence[Any], known: LivePolicy | GoverningPolicy | None
) -> tuple[LivePolicy, tuple[ForcedModeState, ...]]:
    number, sha256, schema_version, canonical_json, forced = row
    forced_modes = _read_forced_modes(forced)
    if number is None:
        return _EMPTY, forced_modes
    if known is not None and canonical_json is None:
        policy = known.policy
    else:
        policy = parse_policy(strict_json.loads(canonical_json.encode()))
    live = LivePolicy(version=number, sha256=sha256, schema_version=schema_version, policy=policy)
    _memory.keep(tenant_id, live)
    return live, forced_modes


def find_live_version(tenant_id: uuid.UUID) -> PolicyVersion | None:
    """Return the newest published version, or None when nothing was published."""
    return PolicyVersion.objects.filter(tenant_id=tenant_id).order_by("-number").first()


_VERSIONS: Final = RowsOf(PolicyVersion)
_read_forced_modes: Final = json_reader(tuple[ForcedModeState, ...])
_read_version: Final = json_reader(_VERSIONS.type)
_LIVE_VERSION: Final = f"""
SELECT {_VERSIONS.sql("v")} FROM governance_policy_version v
 WHERE v.tenant_id = %s ORDER BY v.number DESC LIMIT 1
"""  # noqa: S608 - of constants


def read_live_version(tenant_id: uuid.UUID) -> PolicyVersion | None:
    """Return what :func:`find_live_version` does, from a transaction of its own."""
    answer = read_at_once(tenant_id, _LIVE_VERSION, str(tenant_id))
    return None if answer is None else _read_version(answer)


def get_version(tenant_id: uuid.UUID, number: int) -> PolicyVersion:
    """Return one published version.

    :raises NotFound: when the tenant has no such version.
    """
    version = PolicyVersion.objects.filter(tenant_id=tenant_id, number=number).first()
    if version is None:
        raise NotFound("No such policy version.")
    return version


def find_versions(
    tenant_id: uuid.UUID, *, below_number: int | None = None, limit: int
) -> list[PolicyVersion]:
    """Return up to ``limit`` versions without their documents, newest first.

    :param below_number: the number after which, downwards, they start.
    """
    rows = PolicyVersion.objects.filter(tenant_id=tenant_id).defer("canonical_json")
    if below_number is not None:
        rows = rows.filter(number__lt=below_number)
    return list(rows.order_by("-number")[:limit])


def is_promotion_required(tenant_id: uuid.UUID) -> bool:
    """Tell whether the tenant lets a mode rise only by a recorded promotion (SPEC 4)."""
    return Tenant.objects.values_list("promotion_required", flat=True).get(id=tenant_id)
