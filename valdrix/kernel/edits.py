"""Edits: a form carries the mark of what it showed, and changes nothing that moved since.

Two people who edit the same thing would otherwise overwrite one another without a word.
"""

from __future__ import annotations

from typing import Any

from valdrix.kernel.canonical import sha256_hex
from valdrix.kernel.problems import Refused


class StaleEdit(Refused):
    """Somebody changed it since it was shown (409); nothing was done."""

    code = "stale_edit"


def edit_mark(values: Any) -> str:
    """Return the mark of what an editor is shown: canonical values of what the edit replaces."""
    return sha256_hex(values)


def check_unmoved(shown: str | None, values: Any) -> None:
    """Refuse an edit of what is not what its editor was shown; it is locked.

    :param shown: the mark; None when it was not kept.
    :raises StaleEdit: when the mark is another one now.
    """
    if shown not in (None, edit_mark(values)):
        raise StaleEdit("Somebody changed this since it was shown. Look at it as it is now first.")
