"""How guesses lock, and one-time codes against the vectors of RFC 6238."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.signin.domain import (
    ACCOUNT,
    ADDRESS,
    FACTOR,
    LIMITS,
    RECOVERY_BYTES,
    RECOVERY_CODES,
    SLOTS_A_KIND,
    Count,
    account_name,
    address_name,
    build_recovery_codes,
    count_guess,
    find_step,
    one_time_code,
    provisioning_uri,
    recovery_digest,
    slot_of,
    step_of,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = LIMITS[ACCOUNT]
# RFC 6238, appendix B, SHA-1: seconds since the epoch and eight digits, of which six are shown.
VECTORS = [
    (59, "94287082"),
    (1111111109, "07081804"),
    (1111111111, "14050471"),
    (1234567890, "89005924"),
    (2000000000, "69279037"),
    (20000000000, "65353130"),
]
SECRET = b"12345678901234567890"


def guess(times: int, *, now: datetime = NOW, count: Count | None = None) -> Count:
    for _ in range(times):
        count = count_guess(count, limits=LIMIT, now=now)
    assert count is not None
    return count


@pytest.mark.parametrize(("seconds", "digits"), VECTORS)
def test_codes_are_those_of_the_rfc(seconds: int, digits: str) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    assert one_time_code(SECRET, step_of(moment)) == digits[-6:]
    assert find_step(SECRET, digits[-6:], now=moment) == seconds // 30


@pytest.mark.parametrize(("off", "is_taken"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_code_is_taken_one_step_early_or_late(off: int, is_taken: bool) -> None:
    code = one_time_code(SECRET, step_of(NOW) + off)
    assert (find_step(SECRET, code, now=NOW) is not None) == is_taken


@pytest.mark.parametrize(
    "text", ["", "12345", "1234567", "12345a", "１２３４５６", "-12345", "1e3456"]
)
def test_what_is_no_code_is_not_taken(text: str) -> None:
    assert find_step(SECRET, text, now=NOW) is None


def test_a_code_may_be_typed_in_two_parts() -> None:
    code = one_time_code(SECRET, step_of(NOW))
    assert find_step(SECRET, f"{code[:3]} {code[3:]}", now=NOW) == step_of(NOW)


def test_the_first_failures_lock_nothing() -> None:
    assert guess(LIMIT.free - 1).wait(NOW) is None
    assert guess(LIMIT.free).wait(NOW) == LIMIT.first_lock


def test_locks_double_and_have_an_end() -> None:
    count, waits = guess(LIMIT.free - 1), []
    for _ in range(8):
        count = guess(1, count=count)
        waits.append(count.wait(NOW))
    assert waits[:4] == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)]
    assert set(waits[4:]) == {LIMIT.longest_lock}
    assert count.wait(NOW + LIMIT.longest_lock) is None


@given(st.integers(1, 500))
def test_no_number_of_failures_locks_longer_than_the_longest(failures: int) -> None:
    wait = guess(failures).wait(NOW)
    assert wait is None or wait <= LIMIT.longest_lock


def test_failures_are_forgotten_after_a_while() -> None:
    count = guess(LIMIT.free + 3)
    assert guess(1, count=count, now=NOW + LIMIT.memory).failures == 1
    later = guess(1, count=count, now=NOW + LIMIT.memory - timedelta(seconds=1))
    assert later.failures == LIMIT.free + 4


def test_slots_are_few_and_depend_on_the_secret() -> None:
    one = slot_of(ACCOUNT, "mary", secret=b"a")
    assert one == slot_of(ACCOUNT, "mary", secret=b"a")
    assert one != slot_of(ACCOUNT, "mary", secret=b"b")
    keys = {slot_of(kind, "mary", secret=b"a").key for kind in (ACCOUNT, ADDRESS, FACTOR)}
    assert len(keys) == 3
    assert all(0 <= key < 3 * SLOTS_A_KIND for key in keys)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Mary", "mary", True),
        ("ｍary", "mary", True),
        ("mary", "marx", False),
    ],
)
def test_names_that_look_the_same_are_counted_together(first: str, second: str, same: bool) -> None:
    assert (account_name(first) == account_name(second)) == same


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_one_network_of_version_six_is_one_address(first: str, second: str, same: bool) -> None:
    assert (address_name(first) == address_name(second)) == same


def test_recovery_codes_differ_and_are_read_as_people_type_them() -> None:
    codes = build_recovery_codes(bytes(range(RECOVERY_CODES * RECOVERY_BYTES)))
    assert len(set(codes)) == RECOVERY_CODES
    digests = {recovery_digest(code) for code in codes}
    assert len(digests) == RECOVERY_CODES
    assert recovery_digest(codes[0].replace("-", " ").upper()) == recovery_digest(codes[0])
    with pytest.raises(ValueError, match="100"):
        build_recovery_codes(bytes(99))


@pytest.mark.parametrize("text", ["", "abcd", "abcd-efgh-ijkl-mno1", "123456"])
def test_what_is_no_recovery_code_has_no_digest(text: str) -> None:
    assert recovery_digest(text) is None


def test_the_uri_holds_no_text_that_could_change_it() -> None:
    uri = provisioning_uri(SECRET, username="a&secret=b:c?d/e")
    assert uri.startswith("otpauth://totp/Valdrix%3Aa%26secret%3Db%3Ac%3Fd%2Fe?")
    assert f"secret={base64.b32encode(SECRET).decode()}&" in uri
