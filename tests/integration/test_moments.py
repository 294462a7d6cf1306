"""Moments come out of the database as they went in, whatever way they are spelled there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import DataError, connection

from valdrix.kernel.db import platform_transaction

SPELLINGS = (
    "2026-11-26 12:00:00+00",
    "2026-11-26 12:00:00.5+00",
    "2026-11-26 12:00:00.000001+00",
    "2026-11-26 12:00:00.61+00",
    "0001-01-01 00:00:00+00",
    "9999-12-31 23:59:59.999999+00",
    "2026-11-26 23:30:00+05:30",
    "1883-11-18 12:00:00-07:52:58",
)


def read(text: str) -> datetime:
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT %s::timestamptz", [text])
        moment: datetime = cursor.fetchone()[0]
        return moment


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_moment_is_the_one_that_python_reads_in_utc(database: None, text: str) -> None:
    moment = read(text)
    assert moment == datetime.fromisoformat(text)
    assert moment.tzinfo is UTC


@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC"])
def test_a_moment_that_no_datetime_holds_is_refused(database: None, text: str) -> None:
    with pytest.raises(DataError):
        read(text)


def test_another_zone_of_the_session_changes_no_moment(database: None) -> None:
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kathmandu'")
        cursor.execute("SELECT '2026-11-26 12:00:00+00'::timestamptz")
        assert cursor.fetchone()[0] == datetime(2026, 11, 26, 12, tzinfo=UTC)
