"""What governs a request at one moment: the live policy, and modes forced below it. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from governance.policies.domain import MODES, Mode, ModeChoice, Policy

NO_VERSION: Final = 0
"""The version of a tenant that has published nothing: the empty policy, the strictest."""


class LivePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The newest published version, or the empty policy as version 0."""

    version: int
    sha256: str
    schema_version: str
    policy: Policy


class ForcedModeState(msgspec.Struct, frozen=True, kw_only=True):
    """A mode that an owner put in force for one source and environment, while it lasts."""

    source: str
    environment: str
    mode: Mode


class GoverningPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The live policy together with the modes forced at the moment it was read."""

    version: int
    sha256: str
    schema_version: str
    policy: Policy
    forced_modes: tuple[ForcedModeState, ...]

    def governs_as(self, other: GoverningPolicy) -> bool:
        """Tell whether another moment's policy and forced modes are the same."""
        return (self.version, self.sha256, self.forced_modes) == (
            other.version,
            other.sha256,
            other.forced_modes,
        )

    def forced_mode(self, source: str, environment: str) -> Mode | None:
        """Return the lowest mode that is forced for a source and environment, or None."""
        found: Mode | None = None
        for forced in self.forced_modes:
            if (forced.source, forced.environment) == (source, environment) and (
                found is None or is_lower(forced.mode, than=found)
            ):
                found = forced.mode
        return found

    def mode(self, source: str, environment: str) -> ModeChoice:
        """Return the mode in force, and which part of the policy or what else it came from.

        A forced mode can only lower: where the policy itself has become laxer since, the
        policy's own mode stands.
        """
        chosen = self.policy.mode(source, environment)
        forced = self.forced_mode(source, environment)
        if forced is not None and is_lower(forced, than=chosen.mode):
            return ModeChoice(mode=forced, scope="emergency")
        return chosen


def is_lower(mode: str, *, than: str) -> bool:
    """Tell whether a mode is laxer than another."""
    names: tuple[str, ...] = MODES
    return names.index(mode) < names.index(than)
