"""``manage.py sign_evidence PROFILE``: put evidence that verifies into a signed statement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from governance.evidence.attestation import PROFILE as ATTESTATION
from governance.evidence.registry import PROFILES, default_terms
from governance.evidence.signed import is_envelope, sign_evidence
from valdrix.certification.commit import NoCommit, read_commit
from valdrix.certification.files import EVIDENCE_BYTES, EVIDENCE_VALUES, Unreadable, read_bounded
from valdrix.certification.output import OutputFailed, OutputRefused, claim_output
from valdrix.certification.scenarios import to_json
from valdrix.kernel.strict_json import StrictJsonError, loads
from valdrix.management.commands.verify_evidence import build_world, verify_file


class Command(BaseCommand):
    """Exits 0 when it was signed, 1 when it does not verify, 2 when used wrongly."""

    help = "Sign a piece of evidence as being of the commit that is checked out."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a profile, the evidence, and where its envelope goes."""
        profiles = sorted(set(PROFILES) - {ATTESTATION})
        parser.add_argument("profile", choices=profiles, metavar="PROFILE")
        parser.add_argument("--evidence-path", type=Path, required=True, metavar="FILE")
        parser.add_argument("--output", type=Path, required=True, metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, sign, write."""
        profile, path = PROFILES[options["profile"]], options["evidence_path"]
        key = settings.EXPORT_SIGNING_KEY
        if key is None:
            raise CommandError("ENFORCEMENT_EXPORT_SIGNING_KEY is not set", returncode=2)
        try:
            commit = read_commit(settings.BASE_DIR).id
            body = read_bounded(path, EVIDENCE_BYTES)
            with claim_output(options["output"]) as output:
                if is_envelope(_parse(body)):
                    raise CommandError(f"{path} is signed already", returncode=2)
                terms = default_terms(profile)
                terms |= {"commit": commit} if "commit" in terms else {}
                problems = verify_file(profile, body, terms, build_world(path, []))
                for problem in problems:
                    self.stdout.write(f"  {problem}")
                if problems:
                    raise CommandError(f"{path} does not verify: nothing was signed", returncode=1)
                envelope = sign_evidence(loads(body), profile=profile.name, commit=commit, key=key)
                output.write(to_json(envelope))
        except (NoCommit, Unreadable, OutputRefused) as error:
            raise CommandError(str(error), returncode=2) from error
        except OutputFailed as error:
            raise CommandError(str(error), returncode=1) from error
        self.stdout.write(f"{options['output']} was signed by {key.key_id}={key.public_text}")


def _parse(body: bytes) -> Any:
    try:
        return loads(body, max_values=EVIDENCE_VALUES)
    except StrictJsonError:
        return None
