"""What the description says of an event's extensions is what the gate takes."""

from __future__ import annotations

import itertools
from decimal import Decimal

import jsonschema
import pytest

from enforcement.adapters.cloud_event import read_structured
from enforcement.adapters.cloud_event_gate import EXTENSIONS, to_gate_request
from enforcement.api.cloud_event_schema import EVENT_SCHEMA
from valdrix.kernel.problems import InvalidRequest

VALUES = (None, "", " ", "shop", "a\u00a0b", "x" * 2001, "1.00", "1e3", "-0.5", "1.23456789")
OTHERS = (True, False, "true", "TRUE", 0, 7, -3, 2**31, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
DIGEST = "sha256:" + "0" * 64

VALIDATOR = jsonschema.Draft202012Validator(
    EVENT_SCHEMA, format_checker=jsonschema.FormatChecker(["uuid"])
)


@pytest.mark.parametrize(
    ("extension", "value"), list(itertools.product(EXTENSIONS, (*VALUES, *OTHERS, DIGEST)))
)
def test_an_extension_fits_its_schema_exactly_where_the_gate_takes_it(extension, value):
    document = {
        "specversion": "1.0",
        "id": "1",
        "source": "/a",
        "type": "b.c",
        "projectid": "shop",
        "estimatedmonthlydeltausd": "0.00",
        extension: value,
    }
    if extension == "estimatedhourlydeltausd":
        del document["estimatedmonthlydeltausd"]
    try:
        # Numbers reach the gate as the exact decimals that the body spells.
        is_number = isinstance(value, int) and not isinstance(value, bool)
        read = {**document, extension: Decimal(value)} if is_number else document
        to_gate_request(read_structured(read), actor="key:1", header_key=None)
        is_taken = True
    except InvalidRequest:
        is_taken = False
    assert VALIDATOR.is_valid(document) == is_taken
