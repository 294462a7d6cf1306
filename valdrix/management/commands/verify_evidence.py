"""``manage.py verify_evidence PROFILE``: recompute a piece of evidence, and say all that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.evidence.checklists import Repository
from governance.evidence.domain import Problem
from governance.evidence.registry import MOST, PROFILES, Flag, Profile, World, verify_evidence
from valdrix.certification.commit import find_source_digest
from valdrix.certification.files import (
    EVIDENCE_BYTES,
    EVIDENCE_VALUES,
    Unreadable,
    find_in,
    read_beside,
    read_bounded,
    read_text_in,
)
from valdrix.kernel.signing import SigningKeyError, check_public_key
from valdrix.kernel.strict_json import StrictJsonError, loads


class Command(BaseCommand):
    """Exits 0 when the evidence holds, 1 when it does not, 2 when used wrongly; repairs nothing."""

    help = "Verify a piece of release evidence by computing its figures again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a profile, a file and the profile's own terms."""
        profiles = parser.add_subparsers(dest="profile", required=True, metavar="PROFILE")
        for profile in PROFILES.values():
            sub = profiles.add_parser(profile.name, help=profile.says)
            sub.add_argument(
                "--evidence-path",
                *profile.path_aliases,
                dest="evidence_path",
                type=Path,
                required=True,
                metavar="FILE",
            )
            for flag in profile.flags:
                _add_flag(sub, flag)
            sub.add_argument(
                "--signer",
                action="append",
                default=[],
                metavar="KID=BASE64URL",
                help="a public key that is trusted; the configured one without this",
            )
            sub.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read the file, verify it, and print every problem with its JSON pointer."""
        profile = PROFILES[options["profile"]]
        path: Path = options["evidence_path"]
        try:
            body = read_bounded(path, EVIDENCE_BYTES)
        except Unreadable as error:
            raise CommandError(str(error), returncode=2) from error
        problems = verify_file(
            profile, body, {flag.name: options[flag.name] for flag in profile.flags},
            build_world(path, options["signer"]),
        )  # fmt: skip
        if options["json"]:
            self.stdout.write(_to_json(profile, path, problems))
        else:
            for problem in problems:
                self.stdout.write(f"  {problem}")
        if problems:
            raise CommandError(f"{path}: {len(problems)} problems", returncode=1)
        if not options["json"]:
            self.stdout.write(f"{path}: verified: {profile.says}")


def verify_file(
    profile: Profile, body: bytes, terms: dict[str, Any], world: World
) -> list[Problem]:
    """Return everything that is wrong with a file as evidence of a profile."""
    try:
        document = loads(body, max_values=EVIDENCE_VALUES)
    except StrictJsonError as error:
        return [Problem("", "malformed_json", str(error))]
    return verify_evidence(profile, document, terms, world)


def build_world(path: Path, signers: list[str]) -> World:
    """Return what verifiers may know: the clock, this repository, and what lies beside a file.

    :param signers: trusted public keys, each ``KID=BASE64URL``; the configured one when empty.
    :raises CommandError: for one that is not well formed.
    """
    return World(
        now=datetime.now(UTC),
        repository=Repository(
            has=lambda name: find_in(settings.BASE_DIR, name) is not None,
            read=lambda name: read_text_in(settings.BASE_DIR, name),
        ),
        signers=_read_signers(signers),
        beside=lambda name: read_beside(path.parent, name),
        source=lambda commit: find_source_digest(settings.BASE_DIR, commit),
    )


def _add_flag(parser: Any, flag: Flag) -> None:
    kinds: dict[type, Any] = {int: _positive, Decimal: read_bound, str: str, type(None): _hours}
    parser.add_argument(
        flag.option,
        dest=flag.name,
        type=kinds[type(flag.default)],
        default=flag.default,
        choices=flag.choices,
        help=f"{flag.help}; {flag.default} by default" if flag.default else flag.help,
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and int(text) > 0):
        raise ValueError(text)
    return int(text)


def read_bound(text: str) -> Decimal:
    """Return a term of the command line that is a finite figure above 0.

    :raises ValueError: for any other text.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or not 0 < value <= MOST:
        raise ValueError(text)
    return value


def _hours(text: str) -> Decimal:
    return read_bound(text)


def _read_signers(signers: list[str]) -> dict[str, str]:
    trusted: dict[str, str] = {}
    for text in signers:
        key_id, _, public = text.partition("=")
        try:
            check_public_key(key_id=key_id, public_text=public)
        except SigningKeyError as error:
            raise CommandError(f"--signer {key_id}: {error}", returncode=2) from error
        if trusted.setdefault(key_id, public) != public:
            raise CommandError(f"--signer {key_id}: it has two keys", returncode=2)
    key = settings.EXPORT_SIGNING_KEY
    if not trusted and key is not None:
        trusted[key.key_id] = key.public_text
    return trusted


def _to_json(profile: Profile, path: Path, problems: list[Problem]) -> str:
    document = {
        "profile": profile.name,
        "evidence_path": str(path),
        "verified": not problems,
        "problems": [
            {"pointer": one.pointer, "code": one.code, "message": one.message} for one in problems
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
