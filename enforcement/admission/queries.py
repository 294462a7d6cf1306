"""Reads of an admission: what governs it, where its namespace belongs, what its object is held by."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec
import orjson
from django.db import DatabaseError, InterfaceError, connection

from enforcement.adapters.kubernetes import Binding
from enforcement.gate.lastknown import last_known
from governance.integrations.queries import CLUSTER_PLACE
from governance.policies.document import canonical_policy, empty_policy
from governance.policies.domain import SCHEMA_VERSION, Kubernetes
from governance.policies.governing import NO_VERSION, GoverningPolicy
from governance.policies.queries import take_policy
from valdrix.kernel.db import (
    TimeLimits,
    drop_lost_connection,
    read_at_once,
    reading,
    to_literal,
)
from valdrix.kernel.problems import NotFound

log = logging.getLogger("valdrix.admission")

# What is held for one of these changes, as an admission let it through and nobody confirmed it.
_HELD: Final = """
SELECT r.decision_id
  FROM billing_charge c
  JOIN billing_reservation r ON r.charge_id = c.id AND r.state = 'active'
  JOIN enforcement_decision d ON d.id = r.decision_id AND d.source = 'k8s_admission'
 WHERE c.tenant_id = %s AND c.state = 'active' AND c.change_is_computed
   AND c.confirmed_at IS NULL AND c.change_fingerprint = ANY(%s)
 ORDER BY r.decision_id LIMIT 1
"""

_TERMS: Final = f"""
SELECT json_build_array(
    (SELECT json_build_array(g.number, g.sha256, g.schema_version, g.canonical_json,
                             g.forced_modes)
       FROM governance_read_policy(%s::uuid, %s::timestamptz, %s) g),
    ({CLUSTER_PLACE}))
"""  # noqa: S608 - constants


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a review comes from, by its credential and its address.

    :ivar integration_id: the cluster that the address names, or None.
    """

    tenant_id: uuid.UUID
    principal_id: str
    integration_id: uuid.UUID | None


class Terms(msgspec.Struct, frozen=True):
    """What a review is judged by: the policy in force, and what an owner says of its cluster.

    :ivar cluster: the cluster's name, or the credential's where it belongs to none.
    """

    governing: GoverningPolicy
    cluster: str
    binding: Binding

    @property
    def kubernetes(self) -> Kubernetes:
        """Return the policy's terms of admission."""
        return self.governing.policy.kubernetes


_STRICTEST: Final = GoverningPolicy(
    version=NO_VERSION,
    sha256=canonical_policy({}).sha256,
    schema_version=SCHEMA_VERSION,
    policy=empty_policy(),
    forced_modes=(),
)


def read_terms(origin: Origin, namespace: str, *, now: datetime, limits: TimeLimits) -> Terms:
    """Return what a review is judged by.

    While the database does not answer, it is the policy that was last seen and the place that the
    namespace last had: the gate then fails safe by the mode that is known for it.

    :raises NotFound: when the address names a cluster that the tenant does not have.
    """
    name = (origin, namespace)
    last = last_known.find(origin.tenant_id)
    kind, _, key_id = origin.principal_id.partition(":")
    try:
        answer = read_at_once(
            origin.tenant_id,
            _TERMS,
            *(str(origin.tenant_id), now.isoformat(), None if last is None else last.sha256),
            *(to_literal(origin.integration_id), key_id if kind == "key" else None, namespace),
            limits=limits,
        )
        assert answer is not None
        policy, place = orjson.loads(answer)
        governing = take_policy(origin.tenant_id, policy, known=last)
    except (DatabaseError, InterfaceError) as error:
        log.warning("an admission's terms could not be read", exc_info=error)
        drop_lost_connection()
        cluster, binding = _last_places.find(name) or (origin.principal_id, Binding())
        return Terms(last or _STRICTEST, cluster, binding)
    cluster, binding = _take_place(origin, place)
    _last_places.keep(name, (cluster, binding))
    return Terms(governing, cluster, binding)


def _take_place(
    origin: Origin, place: tuple[str, str | None, str | None] | None
) -> tuple[str, Binding]:
    if place is not None:
        cluster, project_id, environment = place
        return cluster, Binding(project_id, environment)
    if origin.integration_id is not None:
        raise NotFound("No such cluster.")
    return origin.principal_id, Binding()


class _LastPlaces:
    """Where each namespace was last seen to belong; bounded, the least recent out first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Origin, str], tuple[str, Binding]] = OrderedDict()

    def keep(self, name: tuple[Origin, str], place: tuple[str, Binding]) -> None:
        with self._lock:
            self._kept[name] = place
            self._kept.move_to_end(name)
            while len(self._kept) > _REMEMBERED_NAMESPACES:
                self._kept.popitem(last=False)

    def find(self, name: tuple[Origin, str]) -> tuple[str, Binding] | None:
        with self._lock:
            return self._kept.get(name)


_REMEMBERED_NAMESPACES: Final = 4096
_last_places: Final = _LastPlaces()


def find_held(
    tenant_id: uuid.UUID, fingerprints: Collection[str], *, limits: TimeLimits
) -> uuid.UUID | None:
    """Return an admission's decision that still holds, unconfirmed, for one of these changes."""
    with reading(tenant_id, limits=limits), connection.cursor() as cursor:
        cursor.execute(_HELD, [tenant_id, list(fingerprints)])
        row = cursor.fetchone()
    return None if row is None else row[0]
