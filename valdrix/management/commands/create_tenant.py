"""``manage.py create_tenant``: a tenant, its first owner, and the owner's API key."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from governance.audit.operations import Actor
from governance.identity.domain import OWNER, RANDOM_BYTES, SCOPES
from governance.identity.operations import found_tenant, issue_api_key
from valdrix.kernel.ids import new_id
from valdrix.kernel.problems import Refused


class Command(BaseCommand):
    """Exit code 0: created; 1: refused, nothing was created; 2: used wrongly."""

    help = "Creates a tenant with an owner, and prints the owner's API key, which is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant's names and the owner's."""
        parser.add_argument("slug", help="a-z, 0-9 and -; at most 63 characters")
        parser.add_argument("--name", required=True, help="what people call the tenant")
        parser.add_argument("--owner", required=True, help="the user name of the first owner")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the tenant and print it."""
        actor = Actor(
            tenant_id=new_id(),
            principal_id="system:create-tenant",
            address=None,
            at=timezone.now(),
        )
        try:
            membership = found_tenant(
                actor=actor, slug=options["slug"], name=options["name"], owner=options["owner"]
            )
        except Refused as error:
            self.stderr.write(error.detail)
            for fault in error.errors:
                self.stderr.write(f"{fault.pointer.lstrip('/')} {fault.detail}")
            sys.exit(1)
        _, text = issue_api_key(
            actor=actor,
            key_id=new_id(),
            random_bytes=os.urandom(RANDOM_BYTES),
            name="first key",
            role=OWNER,
            person_id=membership.user_id,
            scopes=SCOPES,
        )
        self.stdout.write(f"tenant:  {options['slug']} ({actor.tenant_id})")
        self.stdout.write(f"owner:   {membership.user.username} (manage.py changepassword)")
        self.stdout.write(f"api key: {text}")
