"""What tests do in a browser: sign in, and measure what is seen."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from governance.models import User
from tests.factories.tenants import Person

PASSWORD = "correct-horse-battery"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}


def give_password(person: Person) -> None:
    """Let a person sign in."""
    user = User.objects.get(pk=person.user_id)
    user.set_password(PASSWORD)
    user.save(update_fields=["password"])


def sign_in(page: Any, address: str, username: str, *, to: str | None = None) -> None:
    """Sign in from the landing page, or from an address that asks for it."""
    wanted = address + (to or reverse("admin:index"))
    page.goto(wanted)
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state("domcontentloaded")


def sign_out(page: Any, address: str) -> None:
    """Sign out by the menu."""
    page.goto(address + reverse("admin:index"))
    page.locator(".vx-account summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_load_state("domcontentloaded")


def is_too_wide(page: Any) -> bool:
    """Tell whether a page scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def find_unlabelled(page: Any) -> list[str]:
    """Return the form fields on a page that say nothing to a screen reader."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('main input, main select, main textarea, #content input, #content select, #content textarea')]
            .filter(one => one.type !== 'hidden' && !one.labels?.length
                           && !one.getAttribute('aria-label') && !one.closest('label'))
            .map(one => one.outerHTML.slice(0, 120))"""
    )
    return found
