"""The short form of ``make fuzz``: a few examples of every operation, the same ones each time."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from typing import Any

import orjson
import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup

from tests.factories.tenants import World
from tests.fuzz.running import CONFIGURATION, ENDS_ITSELF
from valdrix.kernel.signing import encode, read_signing_key
from valdrix.openapi import build_schema

EXAMPLES = 2
A_FEW = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def described(tenant: World, settings: Any) -> Any:
    """Give the description as the fuzzer reads it, with everything configured that can be."""
    settings.EXPORT_SIGNING_KEY = read_signing_key(key_id="fuzz", seed=encode(os.urandom(32)))
    settings.ALLOWED_HOSTS = ["*"]
    stated = tomllib.loads(CONFIGURATION.read_text())
    # The key that is given is the one that counts: no made-up credentials beside it.
    stated["generation"]["with-security-parameters"] = False
    config = SchemathesisConfig.from_dict(stated)
    found = schemathesis.openapi.from_wsgi("/api/schema", get_wsgi_application(), config=config)
    return found.exclude(operation_id_regex=ENDS_ITSELF)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
def test_every_operation_keeps_what_the_description_says(tenant: World, described: Any) -> None:
    headers = {"Authorization": f"Bearer {tenant.owner.key}"}
    answered: Counter[int] = Counter()
    faults = []

    def ask(operation: Any) -> None:
        @A_FEW
        @given(case=operation.as_strategy())
        def some(case: Any) -> None:
            response = case.call(headers=headers)
            answered[response.status_code] += 1
            case.validate_response(response, headers=headers)

        try:
            some()
        except (FailureGroup, AssertionError) as fault:
            faults.append(f"{operation.label}: {fault}")

    operations = [found.ok() for found in described.get_all_operations()]
    for operation in operations:
        ask(operation)
    assert faults == []
    assert len(operations) == _count_described() - 4
    # Neither does everything refuse nor everything accept what it was sent.
    assert answered[200] > len(operations) // 4
    assert answered[201] > 0
    # Run tasks are signed, and nobody signed these.
    assert answered[401] <= 2 * EXAMPLES


def _count_described() -> int:
    return sum(len(path) for path in orjson.loads(build_schema())["paths"].values())
