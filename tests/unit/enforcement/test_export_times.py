"""Times in exports: always of one length, whatever the year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from enforcement.exports.domain import time_text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000000Z"),
        (
            datetime(2026, 1, 1, 1, 2, 3, 45, timezone(timedelta(hours=2))),
            "2025-12-31T23:02:03.000045Z",
        ),
        (datetime(126, 9, 30, 16, 5, 57, 580_000, tzinfo=UTC), "0126-09-30T16:05:57.580000Z"),
    ],
)
def test_a_time_is_written_in_utc_with_four_digits_of_year(moment: datetime, text: str) -> None:
    assert time_text(moment) == text
