"""The one way to write to the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connection

from enforcement.ledger.domain import ChainedEntry, EntryFacts, chain
from enforcement.ledger.queries import lock_head
from valdrix.kernel.db import transaction_required

_INSERT = """
INSERT INTO enforcement_ledger_entry (tenant_id, canonical, prev_hash, entry_hash)
SELECT %s, canonical, prev_hash, entry_hash
  FROM unnest(%s::text[], %s::bytea[], %s::bytea[])
       WITH ORDINALITY AS t (canonical, prev_hash, entry_hash, place)
 ORDER BY place
"""


def append(*, tenant_id: uuid.UUID, facts: Sequence[EntryFacts]) -> list[ChainedEntry]:
    """Append entries to a tenant's chain, in the order given; the last step of a use case.

    The head stays locked until the transaction ends, so that positions have no gap and follow
    the order of commits.

    :raises NotInTransaction: outside a transaction.
    """
    transaction_required()
    entries = chain(tenant_id, lock_head(), facts)
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT,
            [
                tenant_id,
                [entry.canonical for entry in entries],
                [entry.prev_hash for entry in entries],
                [entry.entry_hash for entry in entries],
            ],
        )
    return entries
