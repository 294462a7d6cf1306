"""JUnit reports as pytest writes them: what ran, counted case by case. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET


class JunitError(ValueError):
    """The bytes are no JUnit report."""

    code = "junit_refused"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many cases ended how."""

    passed: int
    failed: int
    skipped: int


def count_cases(report: bytes) -> Counts:
    """Count a report's cases, each by itself: what the report says of its sums is not believed.

    :raises JunitError: when it is no report, or holds no case.
    """
    # Entities, which can make a small report huge, are declared in a document type only. Of the
    # encodings that the parser reads, UTF-16 alone could hide one.
    if b"<!" in report or b"\0" in report:
        raise JunitError("a report is UTF-8 and has no document type")
    try:
        root = ET.fromstring(report)  # noqa: S314 - see above
    except ET.ParseError as error:
        raise JunitError(f"it is no XML: {error}") from None
    endings = [{child.tag for child in case} for case in root.iter("testcase")]
    if not endings:
        raise JunitError("it holds no case")
    failed = sum(bool(tags & {"failure", "error"}) for tags in endings)
    skipped = sum("skipped" in tags and not tags & {"failure", "error"} for tags in endings)
    return Counts(len(endings) - failed - skipped, failed, skipped)
