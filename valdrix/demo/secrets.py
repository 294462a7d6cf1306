"""The demo's keys and passwords: generated once, kept in one file that its owner alone can read.

The database has digests only, so whoever shows a key again must have kept it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from valdrix.embedded.record import write_private_file
from valdrix.kernel import strict_json

FILE_NAME: Final = "demo-secrets.json"
_PASSWORD_BYTES: Final = 12


@dataclass
class DemoSecrets:
    """What the file holds.

    :ivar api_keys: by tenant's slug and role.
    :ivar passwords: by user name.
    :ivar password_digests: the digest that was last seen to belong to each password, because
        finding out by hashing takes a good part of a second for each person.
    """

    path: Path
    api_keys: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    password_digests: dict[str, str] = field(default_factory=dict, repr=False)

    def password_of(self, username: str) -> str:
        """Return a person's password, generating and keeping one for a new person."""
        if username not in self.passwords:
            self.passwords[username] = secrets.token_urlsafe(_PASSWORD_BYTES)
            self.save()
        return self.passwords[username]

    def save(self) -> None:
        """Replace the file."""
        content = {
            "api_keys": self.api_keys,
            "passwords": self.passwords,
            "password_digests": self.password_digests,
        }
        write_private_file(self.path, to_text(content))


def load_demo_secrets(directory: Path) -> DemoSecrets:
    """Return what is kept in a directory; nothing yet where there is no file, or a damaged one."""
    kept = DemoSecrets(path=directory / FILE_NAME)
    try:
        content = strict_json.loads(kept.path.read_bytes())
        kept.api_keys = {slug: dict(keys) for slug, keys in content["api_keys"].items()}
        kept.passwords = dict(content["passwords"])
        kept.password_digests = dict(content["password_digests"])
    except FileNotFoundError:
        return kept
    except (strict_json.StrictJsonError, AttributeError, KeyError, TypeError, ValueError):
        return DemoSecrets(path=kept.path)
    return kept


def to_text(content: dict[str, Any]) -> str:
    """Return a document as the demo's files have it."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n"
