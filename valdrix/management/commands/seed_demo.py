"""``manage.py seed_demo``: the demo tenants, and the file that tells scripts how to use them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from valdrix.demo.people import NotOurs
from valdrix.demo.seed import Place, seed, write_demo_file
from valdrix.embedded.places import default_state_directory
from valdrix.kernel.problems import Refused

PENDING_FILE = "demo.pending.json"


class Command(BaseCommand):
    """Exit code 0: the demo is there and the file written; 1: something is in its way."""

    help = (
        "Makes the demo tenants where they are missing, and writes what scripts need to use them."
        " Doing it again changes nothing; keys and passwords are kept beside the file."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the server's address, the file and the tenants' names."""
        parser.add_argument("--base-url", default="http://127.0.0.1:8000")
        parser.add_argument(
            "--pending-file", type=Path, default=default_state_directory() / PENDING_FILE
        )
        parser.add_argument("--tenant", metavar="SLUG", default="demo")
        parser.add_argument("--other-tenant", metavar="SLUG", default="other")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the demo and write the file."""
        pending: Path = options["pending_file"]
        place = Place(
            slug=options["tenant"],
            other_slug=options["other_tenant"],
            directory=pending.parent,
            base_url=options["base_url"].rstrip("/"),
        )
        try:
            document = seed(place=place, now=timezone.now())
        except (NotOurs, Refused) as error:
            self.stderr.write(f"the demo cannot be made: {error}")
            sys.exit(1)
        write_demo_file(document, pending)
        self.stdout.write(f"tenants {place.slug} and {place.other_slug}: see {pending}")
