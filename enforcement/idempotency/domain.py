"""How an attempt's name is stored. Pure."""

from __future__ import annotations

import re
from typing import Final

CALLER: Final = "caller"
"""The namespace of keys that callers chose."""

KEY_FORM: Final = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)


def stored_key(*, namespace: str, key: str) -> str:
    """Return the stored form: each part behind its length, so that no two names collide.

    A caller's key lives in its own namespace and can never spell a surface's key.
    """
    return f"{len(namespace)}:{namespace}{len(key)}:{key}"
