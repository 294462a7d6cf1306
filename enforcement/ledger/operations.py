"""The one way to write to the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import orjson

from enforcement.ledger.domain import EntryFacts, open_entries
from valdrix.kernel.db import Call, call_now, transaction_required

_APPEND = "SELECT enforcement_append_ledger(%s::json)"


def append(*, tenant_id: uuid.UUID, facts: Sequence[EntryFacts]) -> int:
    """Append entries to a tenant's chain, in the order given; the last step of a use case.

    The database locks the head, gives each entry its place and chains it, in one round trip. The
    head stays locked until the transaction ends, so that positions have no gap and follow the order
    of commits.

    :return: the place of the last entry.
    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    items = (item for _, item in append_calls(tenant_id=tenant_id, facts=facts))
    ((place,),) = call_now((_APPEND, ",".join(items)))
    return int(place)


def append_calls(*, tenant_id: uuid.UUID, facts: Sequence[EntryFacts]) -> list[Call]:
    """Return the writes of :func:`append` as calls to be sent with others, behind all of them."""
    return [(_APPEND, orjson.dumps(parts).decode()) for parts in open_entries(tenant_id, facts)]
