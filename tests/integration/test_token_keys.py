"""Signing keys: listed, rotated with an overlap, retired; a retired one is refused at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from governance.models import TokenKey
from governance.tokens.keys import (
    LastTokenKey,
    TokenKeyMissing,
    build_key_set,
    create_key,
    find_public_key,
    get_signing_key,
    list_keys,
    open_key,
    retire_key,
    rotate_keys,
)
from tests.client import Api
from valdrix.kernel.db import platform_transaction
from valdrix.kernel.ids import new_id

FAR = datetime(2190, 1, 1, tzinfo=UTC)
"""A time at which no other test's key signs: keys belong to no tenant."""


def kid() -> str:
    return f"test-{new_id().hex[-16:]}"


def run(*words: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("keys", *words, stdout=out, stderr=out)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def make(name: str, *, active_from: datetime = FAR) -> TokenKey:
    with platform_transaction():
        return create_key(kid=name, now=FAR, active_from=active_from)


def test_a_new_key_is_published_before_it_signs(database: None) -> None:
    start, old, new = FAR + timedelta(days=1), kid(), kid()
    make(old, active_from=start)
    rotate_keys(kid=new, now=start, active_from=start + timedelta(minutes=5), old_retire_at=None)

    assert get_signing_key(new_kid="x", at=start + timedelta(minutes=4)).key_id == old
    assert get_signing_key(new_kid="x", at=start + timedelta(minutes=5)).key_id == new
    published = {key["kid"]: key for key in build_key_set(start)["keys"]}
    assert {old, new} <= set(published)
    assert set(published[new]) == {"kty", "crv", "x", "kid", "use", "alg"}, "nothing private"
    assert published[new]["alg"] == "EdDSA"


def test_old_keys_verify_until_they_are_retired(database: None) -> None:
    start = FAR + timedelta(days=10)
    old, new = kid(), kid()
    make(old, active_from=start)
    end = start + timedelta(hours=1)
    rotate_keys(kid=new, now=start, active_from=start, old_retire_at=end)

    assert find_public_key(old, at=end - timedelta(seconds=1)) is not None
    assert find_public_key(old, at=end) is None
    assert find_public_key(new, at=end) is not None
    assert old not in {key["kid"] for key in build_key_set(end)["keys"]}
    assert {state.kid: state.status for state in list_keys(end)}[old] == "retired"


def test_the_last_key_that_signs_is_kept_unless_forced(database: None) -> None:
    early = datetime(1990, 1, 1, tzinfo=UTC)
    only = kid()
    with platform_transaction():
        create_key(kid=only, now=early, active_from=early)
    with pytest.raises(LastTokenKey):
        retire_key(kid=only, now=early + timedelta(days=1))
    assert find_public_key(only, at=FAR) is not None
    retire_key(kid=only, now=early + timedelta(days=1), force=True)
    assert find_public_key(only, at=FAR) is None
    with pytest.raises(TokenKeyMissing):
        get_signing_key(new_kid="x", at=early + timedelta(days=2))


def test_the_private_half_is_sealed_to_its_key(database: None, settings: Any) -> None:
    name, other = kid(), kid()
    key, moved = make(name), make(other)
    raw = open_key(key).private.private_bytes_raw()
    assert raw not in bytes(key.sealed_private)
    moved.sealed_private = key.sealed_private
    with pytest.raises(TokenKeyMissing):
        open_key(moved)
    settings.SECRET_SEALING_KEYS = ()
    with pytest.raises(TokenKeyMissing):
        open_key(key)
    with pytest.raises(TokenKeyMissing):
        make(kid())


def test_keys_command_lists_rotates_and_retires(database: None) -> None:
    code, said = run("rotate", "--sign-in-seconds", "0")
    assert code == 0
    first = said.split()[0]
    code, said = run("rotate", "--sign-in-seconds", "0")
    second = said.split()[0]
    code, listed = run("list")
    states = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
    assert (code, states[first], states[second]) == (0, "verifying", "signing")

    assert run("retire", first) == (0, f"{first} retired\n")

    assert {line.split()[0]: line.split()[1] for line in run("list")[1].splitlines()}[
        first
    ] == "retired"
    published = {key["kid"] for key in Api().get("/.well-known/jwks.json").json()["keys"]}
    assert second in published
    assert first not in published


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("retire", "nothing"), 1, "not_found"),
        (("rotate", "--sign-in-seconds", "-1"), 2, "0 to a year"),
        (("rotate", "--retire-old-in-seconds", "10"), 2, "before the new key signs"),
    ],
)
def test_keys_command_says_why_not(
    database: None, words: tuple[str, ...], code: int, said: str
) -> None:
    before = TokenKey.objects.count()
    found, text = run(*words)
    assert (found, TokenKey.objects.count()) == (code, before)
    assert said in text


def test_the_key_set_may_be_kept_for_a_while_and_takes_no_parameters(database: None) -> None:
    response = Api().get("/.well-known/jwks.json")
    assert response["Cache-Control"] == "public, max-age=300"
    assert Api().get("/.well-known/jwks.json?kid=x").status_code == 422
