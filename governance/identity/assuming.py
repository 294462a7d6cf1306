"""Whom a credential is assumed to speak for, until the database has confirmed it for one request.

A gate asks the database twice, and the first of the two messages can confirm the credential on its
way. Until then nothing is answered and nothing is written, whoever it spoke for a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class NotAsAssumed(Exception):
    """A credential is not what it was taken for: authenticate in full, and begin again.

    Nothing was written for the request, and nothing answered.
    """


@dataclass(eq=False, slots=True)
class Assumption:
    """That a key still speaks for whom it spoke for a moment ago; made for one request.

    :ivar told: the key and what the database said of it, as ``governance_changed_keys`` takes it.
    :ivar judge: has the database asked in full, and tells whether it is as assumed.
    :ivar noted: is called when the database confirmed it in another message.
    :ivar refuted: is called when the database did not; after that, nobody takes it to be so.
    """

    told: str
    judge: Callable[[], bool]
    noted: Callable[[], None]
    refuted: Callable[[], None]
    is_confirmed: bool = False

    def confirm(self) -> None:
        """Have the database asked in full, unless it was confirmed before.

        :raises NotAsAssumed: when the key speaks for somebody else now, or for nobody.
        """
        if not self.is_confirmed:
            if not self.judge():
                raise NotAsAssumed
            self.is_confirmed = True

    def note(self) -> None:
        """Take it as confirmed, because the database said so after the request had come."""
        if not self.is_confirmed:
            self.is_confirmed = True
            self.noted()
