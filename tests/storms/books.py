"""The books after a storm: sums, chain, invariants, and every decision made once more."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import F

from enforcement.gate.decision import GateContext, Outcome, decide, decode_context, encode
from enforcement.integrity.operations import report_integrity_of
from enforcement.models import Decision, LedgerEntry
from governance.models import PolicyVersion
from governance.policies.document import parse_policy
from governance.policies.domain import Policy
from tests.factories.sums import check_chain, find_differences
from valdrix.kernel import strict_json
from valdrix.kernel.db import snapshot_reading
