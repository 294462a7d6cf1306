"""``manage.py policy lint|diff|publish|export``: policies as files, so that they live in git."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any, Final

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from enforcement.controls import policies
from governance.audit.operations import Actor
from governance.policies.comparison import Change
from governance.policies.document import InvalidPolicy, lint
from governance.policies.governing import NO_VERSION
from governance.policies.operations import build_draft
from governance.tenants.queries import find_tenant_id
from valdrix.kernel import strict_json
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import FieldError, NotFound, Refused

_AUTHOR: Final = "system:policy-command"
_MAX_FILE_BYTES: Final = 10 * 1024 * 1024
_COMMENT_LIMIT: Final = 2000
_MAX_VERSION: Final = 2**31 - 1


class Command(BaseCommand):
    """Exits 0 when done or equal, 1 when refused or different, 2 when used wrongly."""

    help = "Lint, compare, publish and export policy documents."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a subcommand with a file, a tenant, or both."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        lints = actions.add_parser("lint", help="print every error of a document")
        compares = actions.add_parser("diff", help="compare a document with the live one")
        publishes = actions.add_parser("publish", help="publish a document as the next version")
        exports = actions.add_parser("export", help="write a published document as a file")
        for one in (lints, compares, publishes):
            one.add_argument("file", metavar="FILE", help="a JSON document; - reads stdin")
        for one in (compares, publishes, exports):
            one.add_argument("--tenant", metavar="SLUG", required=True)
        publishes.add_argument("--comment", default="", help="kept with the version")
        publishes.add_argument(
            "--base-version",
            type=int,
            metavar="N",
            help="refuse unless this version is live; default: whichever is live",
        )
        exports.add_argument(
            "--version", dest="number", type=int, metavar="N", help="default: live"
        )
        exports.add_argument("--output", metavar="FILE", help="default: standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the subcommand says."""
        action = getattr(self, f"_{options['action']}")
        try:
            action(options)
        except InvalidPolicy as error:
            self._tell(error.errors)
            raise CommandError(f"{len(error.errors)} errors", returncode=1) from None
        except Refused as error:
            raise CommandError(f"{error.problem_code}: {error.detail}", returncode=1) from None

    def _lint(self, options: dict[str, Any]) -> None:
        errors = lint(self._read(options["file"]))
        self._tell(errors)
        if errors:
            raise CommandError(f"{len(errors)} errors", returncode=1)
        self.stdout.write("valid")

    def _diff(self, options: dict[str, Any]) -> None:
        tenant_id, document = _find_tenant(options["tenant"]), self._read(options["file"])
        found = policies.compare_with_live(tenant_id, document)
        for change in found.changes:
            self.stdout.write(_change_line(change))
        for mode in found.raised_modes:
            self.stdout.write(f"raises the mode of {mode}")
        if found.changes:
            summary = f"{len(found.changes)} differences from version {found.live_version}"
            raise CommandError(summary, returncode=1)
        self.stdout.write(f"equal to version {found.live_version}")

    def _publish(self, options: dict[str, Any]) -> None:
        tenant_id, document = _find_tenant(options["tenant"]), self._read(options["file"])
        base_version = options["base_version"]
        if base_version is None:
            live = policies.find_live_version(tenant_id)
            base_version = NO_VERSION if live is None else live.number
        if len(options["comment"]) > _COMMENT_LIMIT:
            raise CommandError(f"--comment is over {_COMMENT_LIMIT} characters", returncode=2)
        draft = build_draft(
            version_id=new_id(),
            document=document,
            comment=options["comment"],
            base_version=base_version,
        )
        actor = Actor(tenant_id=tenant_id, principal_id=_AUTHOR, address=None, at=timezone.now())
        version = policies.publish_policy(actor=actor, draft=draft)
        self.stdout.write(f"published version {version.number} sha256 {version.sha256}")

    def _export(self, options: dict[str, Any]) -> None:
        document = _find_document(_find_tenant(options["tenant"]), options["number"])
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        if options["output"] is None:
            self.stdout.write(text)
            return
        try:
            Path(options["output"]).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}", returncode=2) from None

    def _read(self, name: str) -> Any:
        try:
            if name == "-":
                body = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
            else:
                with Path(name).open("rb") as file:
                    body = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}", returncode=2) from None
        if len(body) > _MAX_FILE_BYTES:
            raise CommandError(f"{name}: larger than {_MAX_FILE_BYTES} bytes", returncode=2)
        try:
            return strict_json.loads(body)
        except strict_json.StrictJsonError as error:
            raise CommandError(f"{name}: {error}", returncode=2) from None

    def _tell(self, errors: tuple[FieldError, ...]) -> None:
        for error in errors:
            self.stderr.write(f"{error.pointer or '/'}: {error.detail} [{error.code}]")


def _find_tenant(slug: str) -> uuid.UUID:
    tenant_id = find_tenant_id(slug)
    if tenant_id is None:
        raise CommandError(f"there is no tenant {slug!r}", returncode=2)
    return tenant_id


def _find_document(tenant_id: uuid.UUID, number: int | None) -> Any:
    if number is None:
        live = policies.find_live_version(tenant_id)
        return {} if live is None else policies.document_of(live)
    if not 0 <= number <= _MAX_VERSION:
        raise NotFound("No such policy version.")
    return policies.document_of(policies.get_version(tenant_id, number))


def _change_line(change: Change) -> str:
    sides = [
        orjson.dumps(side).decode() if side is not None else "nothing"
        for side in (change.old, change.new)
    ]
    return f"{change.kind} {change.pointer or '/'}: {sides[0]} -> {sides[1]}"
