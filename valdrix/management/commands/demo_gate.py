"""``manage.py demo_gate``: a real estimate through the gate, the decision, and how to go on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from valdrix.demo.asking import GATE, GateNotAsked, ask_about_estimate, ask_for_approval
from valdrix.demo.rendering import render_decision
from valdrix.embedded.places import default_state_directory
from valdrix.kernel import strict_json
from valdrix.kernel.ids import new_id

# The second is the file's name once the server is ready.
DEMO_FILES = ("demo.pending.json", "demo.json")
ENVIRONMENTS = ("prod", "staging")


class Command(BaseCommand):
    """Exit code 0: the gate decided; 1: it did not, or there is no demo."""

    help = (
        "Sends the demo's Infracost estimate to the gate over HTTP, once for prod and once for"
        " nonprod, and prints the decisions, a sign-in, an API key and a curl to paste."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the server's address and the file that `seed_demo` wrote."""
        parser.add_argument("--base-url", help="the web server; by default the demo file's")
        parser.add_argument("--demo-file", type=Path, help="by default the one in .valdrix/")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, print the decisions, print how to go on."""
        demo = _read_demo(options["demo_file"])
        if demo is None:
            self.stderr.write("there is no demo file: run manage.py seed_demo first")
            sys.exit(1)
        base_url = (options["base_url"] or demo["base_url"]).rstrip("/")
        run_id = f"demo-{timezone.now():%Y%m%d-%H%M%S}-{new_id().hex[-4:]}"
        try:
            answers = [
                ask_about_estimate(
                    base_url=base_url,
                    api_key=demo["api_keys"]["member"],
                    environment=environment,
                    run_id=run_id,
                )
                for environment in ENVIRONMENTS
            ]
            waiting = ask_for_approval(
                base_url=base_url,
                api_key=demo["api_keys"]["member"],
                day=f"{timezone.now():%Y-%m-%d}",
            )
        except GateNotAsked as error:
            self.stderr.write(f"the gate made no decision: {error}")
            sys.exit(1)
        self._print("\nAn Infracost estimate and its plan, as a pipeline sends them to the gate:\n")
        for answer in answers:
            self._print(render_decision(answer))
        self._print(f"{waiting} changes in prod wait for an owner in the console.\n")
        self._print(_farewell(demo, base_url))

    def _print(self, text: str) -> None:
        """Print what the terminal's encoding can hold, and question marks for the rest."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        self.stdout.write(text.encode(encoding, "replace").decode(encoding))


def _read_demo(path: Path | None) -> Any:
    candidates = [path] if path else [default_state_directory() / name for name in DEMO_FILES]
    for candidate in candidates:
        if candidate.exists():
            return strict_json.loads(candidate.read_bytes())
    return None


def _farewell(demo: Any, base_url: str) -> str:
    users = "\n".join(
        f"  {user['role']:<8} {user['username']}  {user['password']}"
        for user in demo["console"]["users"]
    )
    keys = "\n".join(f"  {role:<8} {text}" for role, text in demo["api_keys"].items())
    body = (
        f'{{"project_id": "{demo["projects"][0]}", "environment": "staging",'
        ' "resource_reference": "aws_instance.worker", "run_id": "curl",'
        ' "estimated_monthly_delta_usd": "42.50"}'
    )
    return f"""
Console   {base_url}/admin/
API       {base_url}/api/docs

Sign in to the console as
{users}

API keys
{keys}

Ask the gate yourself (with "prod" and "640.00" it needs an owner's approval):

curl -sS -w '\\n' {base_url}{GATE} \\
  -H 'Authorization: Bearer {demo["api_keys"]["member"]}' \\
  -H 'Content-Type: application/json' \\
  -d '{body}'
"""
