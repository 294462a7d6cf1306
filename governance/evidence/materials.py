"""What a release is made of: pinned requirements, bills of them, and the digest of the source. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from valdrix.kernel.strict_json import StrictJsonError, loads

RUNTIME: Final = "sbom.runtime.cdx.json"
DEVELOPMENT: Final = "sbom.development.cdx.json"
SOURCE: Final = "source.tar.sha256"
BILLS: Final[Mapping[str, str]] = {
    RUNTIME: "requirements.txt",
    DEVELOPMENT: "requirements-dev.txt",
}
"""Each bill of materials with the file whose installation it lists."""
SPEC_VERSION: Final = "1.6"
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==([^\s;#]+)", re.ASCII)
_INCLUDE: Final = re.compile(r"-r\s+(\S+)")


class MaterialsError(ValueError):
    """Requirements or a bill of materials are not what they should be; the message says where."""

    code = "materials_refused"


def read_pins(name: str, read: Callable[[str], str | None]) -> dict[str, str]:
    """Return the pinned version of each distribution that a requirements file installs.

    :param read: returns the text of a file of the repository.
    :raises MaterialsError: when a file is not there, or a line pins nothing.
    """
    text = read(name)
    if text is None:
        raise MaterialsError(f"there is no {name}")
    pins: dict[str, str] = {}
    for line in text.splitlines():
        wanted = line.split("#", 1)[0].strip()
        included, pin = _INCLUDE.fullmatch(wanted), _PIN.fullmatch(wanted)
        if included is not None:
            pins |= read_pins(included[1], read)
        elif pin is not None:
            pins[normalise(pin[1])] = pin[2]
        elif wanted:
            raise MaterialsError(f"{name}: {wanted!r} pins nothing")
    return pins


def read_bill(body: bytes) -> dict[str, str]:
    """Return the version of each component of a bill of materials.

    :raises MaterialsError: when it is no CycloneDX document of this version, or lists one twice.
    """
    try:
        document = loads(body, max_values=None)
    except StrictJsonError as error:
        raise MaterialsError(f"it is {error}") from None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise MaterialsError("it is no CycloneDX document")
    if document.get("specVersion") != SPEC_VERSION:
        raise MaterialsError(f"its version is not {SPEC_VERSION}")
    found: dict[str, str] = {}
    components: Any = document.get("components")
    for component in components if isinstance(components, list) else []:
        name, version = (str(component.get(part)) for part in ("name", "version"))
        if normalise(name) in found:
            raise MaterialsError(f"it lists {name} twice")
        if component.get("purl") != build_purl(name, version):
            raise MaterialsError(f"the package URL of {name} is not that of its version")
        found[normalise(name)] = version
    return found


def compare(found: Mapping[str, str], pinned: Mapping[str, str]) -> list[str]:
    """Return how a bill differs from what is pinned, a sentence for each distribution."""
    names = sorted(found.keys() | pinned.keys())
    return [
        f"{name} is {found.get(name, 'not listed')}, and pinned is {pinned.get(name, 'none')}"
        for name in names
        if found.get(name) != pinned.get(name)
    ]


def build_purl(name: str, version: str) -> str:
    """Return the package URL of a distribution on the Python package index."""
    return f"pkg:pypi/{normalise(name)}@{version}"


def normalise(name: str) -> str:
    """Return a distribution's name in its one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def state_source(sha256: str) -> bytes:
    """Return the file that states the digest of the source, as ``sha256sum`` would write it."""
    return f"{sha256}  source.tar\n".encode()
