"""``manage.py reset_second_factor``: for a person who lost the authenticator and the codes."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from governance.identity.queries import find_person
from governance.signin.operations import Person, reset_factor

_BY = "system:reset-second-factor"


class Command(BaseCommand):
    """Exit code 0: removed; 1: there is no such person, or nothing to remove."""

    help = (
        "Removes a person's second factor, so that the password alone signs in until they enrol"
        " another one. Make sure first that it is they who ask. Each of their tenants' audit logs"
        " says that it was done."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the user name."""
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove it and say so."""
        person = find_person(options["username"])
        if person is None:
            self.stderr.write("there is no person of this user name")
            sys.exit(1)
        acting = Person(person_id=person.pk, address=None, at=timezone.now())
        if not reset_factor(person=acting, by=_BY):
            self.stderr.write("they have no second factor")
            sys.exit(1)
        self.stdout.write(f"the second factor of {person.username} is removed")
