"""``manage.py issue_api_key``: a key for a member, also one that may approve as them."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from governance.audit.operations import Actor
from governance.identity.domain import MEMBER, RANDOM_BYTES, ROLES, SCOPES
from governance.identity.operations import issue_api_key
from governance.identity.queries import find_person
from governance.tenants.queries import find_tenant_id
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused

_NOBODY: Final = 0
"""No person's id: a name that nobody has is refused like a stranger's."""


class Command(BaseCommand):
    """Exit code 0: issued; 1: refused, nothing was issued; 2: used wrongly."""

    help = "Issues an API key for a member of a tenant and prints it; it is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what the key is to be, and who answers for it."""
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument(
            "--person", required=True, metavar="USERNAME", help="who answers for it"
        )
        parser.add_argument("--name", required=True, help="what uses it")
        parser.add_argument("--role", choices=ROLES, default=MEMBER)
        parser.add_argument(
            "--scope", choices=SCOPES, action="append", default=[], help="beyond the role"
        )
        parser.add_argument(
            "--project", action="append", help="bind it to projects; without it, all of the tenant"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue the key, or say why not."""
        tenant_id = find_tenant_id(options["tenant"])
        if tenant_id is None:
            raise CommandError(f"there is no tenant {options['tenant']!r}", returncode=2)
        person = find_person(options["person"])
        try:
            _, text = issue_api_key(
                actor=Actor(tenant_id, "system:issue-api-key", None, timezone.now()),
                key_id=new_id(),
                random_bytes=os.urandom(RANDOM_BYTES),
                name=options["name"],
                role=options["role"],
                person_id=_NOBODY if person is None else person.pk,
                scopes=options["scope"],
                projects=options["project"],
            )
        except Refused as refusal:
            self.stderr.write(f"{refusal.problem_code}: {refusal.detail}")
            for fault in refusal.errors:
                self.stderr.write(f"{fault.pointer.lstrip('/')} {fault.detail}")
            sys.exit(1)
        self.stdout.write(f"api key: {text}")
