"""``manage.py check_api_auth``: no route answers anybody unless it is on the public list."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from valdrix.routes import PUBLIC_ROUTES, find_open_routes, list_routes


class Command(BaseCommand):
    """Exit code 0: every route is authenticated or listed; 1: some is not; 2: used wrongly."""

    help = "Walks every route; fails on one that is neither authenticated nor on the public list."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the URLconf to walk."""
        parser.add_argument("--urlconf", help="a URLconf other than the root one")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what is wrong, or how many routes are right."""
        try:
            routes = list_routes(options["urlconf"])
        except ImportError as error:
            self.stderr.write(f"no such URLconf: {error}")
            sys.exit(2)
        problems = find_open_routes(routes)
        for problem in problems:
            self.stderr.write(problem)
        if problems:
            sys.exit(1)
        authenticated = len(routes) - len(PUBLIC_ROUTES)
        self.stdout.write(f"{authenticated} routes authenticated, {len(PUBLIC_ROUTES)} public")
