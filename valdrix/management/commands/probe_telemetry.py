"""``manage.py probe_telemetry``: the fifteen probes, one or all, against a running installation."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils import timezone

from governance.identity.domain import read_key_text
from governance.models import User
from valdrix.certification.telemetry.calling import Place
from valdrix.certification.telemetry.probes import PROBES, Setting, run_probe
from valdrix.certification.telemetry.subject import Subject, sign_in
from valdrix.kernel.db import platform_transaction

_KEY: Final = "VALDRIX_API_KEY"


class Command(BaseCommand):
    """Exit code 0: every probe passed; 1: one did not; 2: used wrongly."""

    help = (
        "Run named probes of the telemetry plane against a running installation, as the owner whose"
        f" API key is in {_KEY}. Gates are asked for real, for 0.01 USD in the project 'probe'."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the probes and where the installation is."""
        parser.add_argument("names", nargs="*", metavar="PROBE", help=", ".join(PROBES))
        parser.add_argument("--all", action="store_true", help="every probe")
        parser.add_argument("--base-url", default="http://127.0.0.1:8000")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the probes and print what each says."""
        unknown = sorted(set(options["names"]) - set(PROBES))
        if unknown or bool(options["names"]) is options["all"]:
            said = f"no such probe: {', '.join(unknown)}; " if unknown else ""
            raise CommandError(f"{said}name some of {', '.join(PROBES)}, or --all", returncode=2)
        setting = Setting(_find_subject(options["base_url"]), timezone.now())
        failed = 0
        for name in PROBES if options["all"] else options["names"]:
            probed = run_probe(name, setting)
            failed += not probed.passed
            if options["json"]:
                self.stdout.write(json.dumps(probed.to_document()))
            else:
                self.stdout.write(f"{'pass' if probed.passed else 'FAIL'}  {name}: {probed.said}")
        if failed:
            sys.exit(1)


def _find_subject(base_url: str) -> Subject:
    """Return the tenant and the owner behind the key.

    :raises CommandError: without a key, or with one that opens nothing.
    """
    address = urlsplit(base_url)
    if address.scheme != "http" or not address.hostname:
        raise CommandError("--base-url takes http://HOST:PORT", returncode=2)
    text = os.environ.get(_KEY, "")
    read = read_key_text(text)
    if read is None:
        raise CommandError(f"{_KEY} has no API key", returncode=2)
    with platform_transaction(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT tenant_id, person_id FROM governance_authenticate_key(%s, %s)",
            [read.lookup, read.digest],
        )
        row = cursor.fetchone()
    if row is None:
        raise CommandError(f"the key in {_KEY} opens nothing", returncode=2)
    place = Place(address.hostname, address.port or 80, key=text)
    cookie = sign_in(User.objects.get(pk=row[1]))
    return Subject(
        tenant_id=row[0], api=place, console=Place(place.host, place.port, cookie=cookie)
    )
