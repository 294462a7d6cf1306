"""The migrations are those that the models need."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from governance.models import Tenant


def check_migrations() -> None:
    call_command("makemigrations", "--check", "--dry-run", stdout=StringIO(), stderr=StringIO())


def test_no_migration_is_pending() -> None:
    check_migrations()


def test_a_changed_model_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tenant._meta.get_field("name"), "max_length", 201)
    with pytest.raises(SystemExit) as caught:
        check_migrations()
    assert caught.value.code == 1
