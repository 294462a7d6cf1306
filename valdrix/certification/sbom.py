"""Bills of materials in CycloneDX: what a requirements file installed into this environment.

The document is written here, and held to the format's published schema by a test: the library that
makes such documents would come with five more packages into every installation.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata
from typing import Any, Final

from packaging.requirements import Requirement

from governance.evidence.materials import SPEC_VERSION, MaterialsError, build_purl, normalise

_NAMESPACE: Final = uuid.UUID("5b0ec0f1-5a6e-5d6c-9f6e-0d5f9b1c7a44")
_LONGEST_LICENCE_NAME: Final = 80
"""Beyond this a package's field holds the text of its licence, not the name."""


def build_bill(
    name: str, pins: Mapping[str, str], *, version: str, commit: str, at: datetime
) -> dict[str, Any]:
    """Return the bill of what is pinned, as it is installed here.

    The same commit and the same installation give the same document.

    :param version: of Valdrix.
    :param at: when the commit was made.
    :raises MaterialsError: when something pinned is not installed in that version.
    """
    found = {pin: _find_installed(pin, wanted) for pin, wanted in pins.items()}
    subject = f"pkg:generic/valdrix@{version}"
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{commit} {name}')}",
        "version": 1,
        "metadata": {
            "timestamp": at.isoformat(),
            "component": {
                "type": "application",
                "bom-ref": subject,
                "name": "valdrix",
                "version": version,
                "purl": subject,
            },
            "properties": [{"name": "valdrix:commit", "value": commit}],
        },
        "components": [_build_component(found[pin]) for pin in sorted(found)],
        "dependencies": [
            {"ref": subject, "dependsOn": sorted(_reference(one) for one in found.values())},
            *(
                {
                    "ref": _reference(found[pin]),
                    "dependsOn": sorted(
                        _reference(found[needed]) for needed in _find_needed(found[pin], found)
                    ),
                }
                for pin in sorted(found)
            ),
        ],
    }


def _find_installed(pin: str, wanted: str) -> metadata.Distribution:
    try:
        found = metadata.distribution(pin)
    except metadata.PackageNotFoundError:
        raise MaterialsError(f"{pin} is not installed: run make install-dev") from None
    if found.version != wanted:
        raise MaterialsError(f"{pin} {found.version} is installed, and {wanted} is pinned")
    return found


def _build_component(found: metadata.Distribution) -> dict[str, Any]:
    component = {
        "type": "library",
        "bom-ref": _reference(found),
        "name": found.name,
        "version": found.version,
        "purl": _reference(found),
    }
    licences = list(_find_licences(found))
    return {**component, "licenses": licences} if licences else component


def _find_licences(found: metadata.Distribution) -> Iterator[dict[str, Any]]:
    """Yield what a distribution says of its licence: an expression, or the names it gives."""
    for expression in found.metadata.get_all("License-Expression") or []:
        yield {"expression": expression}
        return
    stated = next(iter(found.metadata.get_all("License") or []), "").strip()
    prefix = "License :: "
    names = [
        one.rsplit(" :: ", 1)[-1]
        for one in found.metadata.get_all("Classifier") or []
        if one.startswith(prefix)
    ]
    if not names and stated and len(stated) <= _LONGEST_LICENCE_NAME and "\n" not in stated:
        names = [stated]
    for name in sorted(set(names)):
        yield {"license": {"name": name}}


def _find_needed(
    found: metadata.Distribution, installed: Mapping[str, metadata.Distribution]
) -> set[str]:
    """Return what a distribution needs of what is pinned, whatever extra asks for it."""
    needed = set()
    for line in found.requires or []:
        requirement = Requirement(line)
        pin = normalise(requirement.name)
        marker = requirement.marker
        extras = ("", *(found.metadata.get_all("Provides-Extra") or []))
        applies = marker is None or any(marker.evaluate({"extra": one}) for one in extras)
        if applies and pin in installed and pin != normalise(found.name):
            needed.add(pin)
    return needed


def _reference(found: metadata.Distribution) -> str:
    return build_purl(found.name, found.version)
