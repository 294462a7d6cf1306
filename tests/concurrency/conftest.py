"""What all tests of concurrency share: the time that a busy machine takes."""

from __future__ import annotations

import pytest

from governance.api import authentication
from valdrix.kernel.postgresql import base

PLENTY_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _all_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty who connect and show their key at once are not asked here whether that is quick."""
    monkeypatch.setattr(authentication, "JUDGED_WITHIN_SECONDS", PLENTY_SECONDS)
    monkeypatch.setattr(base, "CONNECT_SECONDS", PLENTY_SECONDS)
