"""The errors of the embedded set-up: each message says what to do, none contains a secret."""

from __future__ import annotations


class EmbeddedError(Exception):
    """A set-up step that cannot go on; the message is printed to the person at the terminal."""


class BinariesNotFound(EmbeddedError):
    """No PostgreSQL server programs were found, or they do not run on this machine."""


class MajorVersionMismatch(EmbeddedError):
    """The cluster on disk was made by another major version than the programs at hand."""


class ServerDidNotStart(EmbeddedError):
    """The server ended, or did not become ready, after it was started."""


class NotDurable(EmbeddedError):
    """The server runs with a setting that could lose an acknowledged decision."""


class ChildKeepsDying(EmbeddedError):
    """A supervised program ends again and again."""


class StepFailed(EmbeddedError):
    """A step of the set-up ended with an error."""


class AlreadyRunning(EmbeddedError):
    """Another `make run` is running from this clone."""
