"""Which side of the house a caller's free text names: ``prod`` or ``nonprod`` (SPEC 2).

Whatever is not plainly listed as nonprod is prod: a typo is never the laxer side.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

Environment = Literal["prod", "nonprod"]
PROD: Final = "prod"
NONPROD: Final = "nonprod"
ENVIRONMENTS: Final = (PROD, NONPROD)

PROD_TOKENS: Final = ("prod", "production", "prd", "live")
DEFAULT_NONPROD: Final = (
    "dev",
    "development",
    "test",
    "testing",
    "qa",
    "staging",
    "stage",
    "sandbox",
    "preview",
    "ci",
    "nonprod",
)

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+", re.ASCII)
_PATTERN: Final = re.compile(r"[A-Za-z0-9]+(?:[-_./ ][A-Za-z0-9]+)*(?:[-_./ ]?\*)?", re.ASCII)
_MIN_STEM: Final = 3


class NonprodNames(msgspec.Struct, frozen=True):
    """The names and patterns that a policy lists as nonprod, ready to be matched.

    :ivar names: tokens joined by ``-``; a name of one token also stands among other listed ones.
    :ivar prefixes: what patterns have before their ``*``; ``review-`` ends at a whole token.
    """

    names: tuple[str, ...]
    prefixes: tuple[str, ...] = ()

    def classify(self, text: str) -> Environment:
        """Return ``prod`` or ``nonprod`` for a caller's own words."""
        # Homoglyphs, zero-width characters and full-width letters are all outside ASCII.
        if not text.isascii() or not text.isprintable():
            return "prod"
        tokens = _tokens(text)
        if not tokens or any(token in PROD_TOKENS for token in tokens):
            return "prod"
        name = "-".join(tokens)
        if name in self.names or all(token in self.names for token in tokens):
            return "nonprod"
        # A pattern takes in spellings that nobody listed, so that none may hide a prod token.
        if _holds_prod_token(name):
            return "prod"
        if self._starts(name) or all(
            token in self.names or self._starts(token) for token in tokens
        ):
            return "nonprod"
        return "prod"

    def _starts(self, text: str) -> bool:
        """Tell whether a pattern covers a name: ``dev*`` ends with its token, ``dev-*`` not."""
        return any(
            text.startswith(prefix) and (prefix.endswith("-") or "-" not in text[len(prefix) :])
            for prefix in self.prefixes
        )


def build_nonprod_names(patterns: tuple[str, ...]) -> NonprodNames:
    """Return the matcher of listed names and patterns, which ``find_fault`` found faultless."""
    names, prefixes = [], []
    for pattern in patterns:
        joined = "-".join(_tokens(pattern))
        if not pattern.endswith("*"):
            names.append(joined)
        else:
            ends_whole = not pattern[-2].isalnum()
            prefixes.append(joined + "-" if ends_whole else joined)
    return NonprodNames(tuple(names), tuple(prefixes))


def find_fault(pattern: str) -> str | None:
    """Return what is wrong with an entry of ``environments.nonprod``, or None."""
    if len(pattern) > 64 or not _PATTERN.fullmatch(pattern):
        return "must be ASCII letters and digits in words, with at most one * at its end"
    tokens = _tokens(pattern)
    named = [token for token in tokens if token in PROD_TOKENS]
    if named:
        return f"{named[0]} always means prod and cannot be listed as nonprod"
    if not pattern.endswith("*"):
        return None
    stem = "-".join(tokens)
    if _holds_prod_token(stem):
        return "a pattern must not hold a word that means prod"
    if not pattern[-2].isalnum():
        return None
    if len(tokens[-1]) < _MIN_STEM:
        return f"a pattern needs {_MIN_STEM} characters, or a whole word, before its *"
    if any(token.startswith(tokens[-1]) for token in PROD_TOKENS):
        return "a pattern must not also match the beginning of a word that means prod"
    return None


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token for token in _SEPARATORS.split(text.lower()) if token)


def _holds_prod_token(name: str) -> bool:
    squeezed = name.replace("-", "")
    return any(token in squeezed for token in PROD_TOKENS)
