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
from governance.evidence.registry import PROFILES, Flag, Profile, World, verify_evidence
from valdrix.certification.commit import find_source_digest
from valdrix.kernel.signing import SigningKeyError, decode
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
            body = path.read_bytes()
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from error
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
        document = loads(body)
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
        repository=Repository(has=_is_in_repository, read=_read_text),
        signers=_read_signers(signers),
        beside=lambda name: _read_beside(path.parent, name),
        source=lambda commit: find_source_digest(settings.BASE_DIR, commit),
    )


def _add_flag(parser: Any, flag: Flag) -> None:
    kinds: dict[type, Any] = {int: _positive, Decimal: _decimal, str: str, type(None): _hours}
    parser.add_argument(
        flag.option,
        dest=flag.name,
        type=kinds[type(flag.default)],
        default=flag.default,
        choices=flag.choices,
        help=f"{flag.help}; {flag.default} by default" if flag.default else flag.help,
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(text)
    return int(text)


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or value <= 0:
        raise ValueError(text)
    return value


def _hours(text: str) -> Decimal:
    return _decimal(text)


def _read_signers(signers: list[str]) -> dict[str, str]:
    trusted = {}
    for text in signers:
        key_id, _, public = text.partition("=")
        try:
            decode(public)
        except SigningKeyError as error:
            raise CommandError(f"--signer {key_id}: {error}", returncode=2) from error
        trusted[key_id] = public
    key = settings.EXPORT_SIGNING_KEY
    if not trusted and key is not None:
        trusted[key.key_id] = key.public_text
    return trusted


def _is_in_repository(name: str) -> bool:
    path = (settings.BASE_DIR / name).resolve()
    return path.is_relative_to(settings.BASE_DIR) and path.exists()


def _read_text(name: str) -> str | None:
    return (settings.BASE_DIR / name).read_text() if _is_in_repository(name) else None


def _read_beside(folder: Path, name: str) -> bytes | None:
    """Return a file of the folder itself: evidence names no other place."""
    path = folder / name
    return path.read_bytes() if Path(name).name == name and path.is_file() else None


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
