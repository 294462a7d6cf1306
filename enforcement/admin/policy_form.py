"""The form of a policy document, made of its JSON Schema: one field for each member.

Whatever the schema gains, the form has. Lists are written as JSON in a field of their own, and
what lint finds stands at the field that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django import forms

from governance.policies.domain import SCHEMA_VERSION
from governance.policies.schema import json_schema
from valdrix.kernel import strict_json
from valdrix.kernel.admin_acts import ActForm
from valdrix.kernel.admin_display import words
from valdrix.kernel.problems import FieldError

MOST_CHARACTERS: Final = 400_000
_DEFAULT_CHOICE: Final = ("", "left out")
_YES_NO: Final = (("true", "yes"), ("false", "no"))
_LABELS: Final = {"k8s": "Kubernetes", "ttl_seconds": "time to live, seconds"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A member of the document that has a value of its own: its path and its schema."""

    path: tuple[str, ...]
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name of its field."""
        return ".".join(self.path)

    @property
    def pointer(self) -> str:
        """Return its JSON pointer."""
        return "/" + "/".join(self.path)


def find_leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Give every member that is no object of named members."""
    for name, member in schema["properties"].items():
        at = (*path, name)
        if member.get("type") == "object":
            yield from find_leaves(member, at)
        elif "const" not in member:
            yield Leaf(at, member)


LEAVES: Final = tuple(find_leaves(json_schema()))


class NotReadable(forms.ValidationError):
    """A text is not JSON."""


def read_json(text: str) -> Any:
    """Return what a text says as JSON, read as strictly as the API reads a body.

    :raises NotReadable: when it is none.
    """
    try:
        return strict_json.loads(text.encode())
    except strict_json.StrictJsonError as error:
        raise NotReadable(f"This is not JSON: {error}") from None
    except UnicodeEncodeError:
        raise NotReadable("This holds characters that no text has.") from None


class PublicationForm(ActForm):
    """What every publication says beside the document."""

    all_optional = True

    comment = forms.CharField(
        max_length=2000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Why. It stands beside the version for ever.",
    )
    base_version = forms.IntegerField(min_value=0, max_value=2**31 - 1, widget=forms.HiddenInput)


class DocumentForm(PublicationForm):
    """The document as one text."""

    document = forms.CharField(
        max_length=MOST_CHARACTERS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 32, "class": "vx-mono", "spellcheck": "false"}),
        help_text="The whole policy as JSON.",
    )
    field_order = ("document", "comment", "base_version")

    def clean_document(self) -> Any:
        """Return the document that the text says."""
        return read_json(self.cleaned_data["document"])

    def policy_document(self) -> Any:
        """Return the document."""
        return self.cleaned_data["document"]

    @staticmethod
    def initial_of(document: Any) -> dict[str, Any]:
        """Return what the form of a document begins with."""
        return {"document": _pretty(document)}

    def field_for(self, error: FieldError) -> str:
        """Return the one field: the pointer says where in it."""
        return "base_version" if error.pointer == "/base_version" else "document"

    def detail_for(self, error: FieldError) -> str:
        """Return what is wrong and where."""
        return f"{error.pointer or 'The whole'} {error.detail}"


class MembersForm(PublicationForm):
    """The document member by member; an empty field leaves its member out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for leaf in LEAVES:
            self.fields[leaf.name] = _field(leaf)

    def clean(self) -> dict[str, Any]:
        """Read the lists, which are written as JSON."""
        for leaf in LEAVES:
            text = self.cleaned_data.get(leaf.name)
            if leaf.schema.get("type") == "array" and text:
                try:
                    self.cleaned_data[leaf.name] = read_json(text)
                except NotReadable as error:
                    self.add_error(leaf.name, error)
        return self.cleaned_data

    def policy_document(self) -> Any:
        """Return the document that the fields make."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        for leaf in LEAVES:
            value = self.cleaned_data.get(leaf.name)
            if value in (None, ""):
                continue
            inner = document
            for part in leaf.path[:-1]:
                inner = inner.setdefault(part, {})
            inner[leaf.path[-1]] = _value(leaf, value)
        return document

    @staticmethod
    def initial_of(document: Any) -> dict[str, Any]:
        """Return what the form of a document begins with."""
        return {leaf.name: _text(_find(document, leaf.path)) for leaf in LEAVES}

    def field_for(self, error: FieldError) -> str | None:
        """Return the field of the member that a pointer leads to, or into."""
        for leaf in LEAVES:
            if error.pointer == leaf.pointer or error.pointer.startswith(f"{leaf.pointer}/"):
                return leaf.name
        return None

    def detail_for(self, error: FieldError) -> str:
        """Return what is wrong, with the rest of the pointer into a list."""
        name = self.field_for(error)
        rest = error.pointer[len(f"/{name}") :].replace("/", " ").strip() if name else ""
        place, _, member = rest.partition(" ")
        if place.isdigit():
            return f"entry {int(place) + 1}{', ' + member if member else ''}: {error.detail}"
        return error.detail

    def groups(self) -> list[dict[str, Any]]:
        """Return the fields by the member of the document that they are in."""
        groups: dict[str, list[Any]] = {}
        for leaf in LEAVES:
            groups.setdefault(leaf.path[0], []).append(self[leaf.name])
        return [
            {
                "title": _label(name),
                "fields": fields,
                "wrong": sum(len(one.errors) for one in fields),
                "filled": sum(1 for one in fields if one.value()),
            }
            for name, fields in groups.items()
        ]


def _field(leaf: Leaf) -> forms.Field:
    schema = leaf.schema
    label = " · ".join(_label(part) for part in leaf.path[1:]) or _label(leaf.path[0])
    terms: dict[str, Any] = {"required": False, "label": label, "help_text": _help(schema)}
    if "enum" in schema:
        choices = [_DEFAULT_CHOICE, *((value, words(value)) for value in schema["enum"])]
        return forms.ChoiceField(choices=choices, **terms)
    if schema.get("type") == "boolean":
        return forms.ChoiceField(choices=[_DEFAULT_CHOICE, *_YES_NO], **terms)
    if schema.get("type") == "array":
        widget = forms.Textarea(attrs={"rows": 6, "class": "vx-mono", "spellcheck": "false"})
        return forms.CharField(max_length=MOST_CHARACTERS, strip=True, widget=widget, **terms)
    return forms.CharField(max_length=200, **terms)


def _help(schema: dict[str, Any]) -> str:
    parts = [schema.get("description", "")]
    if "minimum" in schema:
        parts.append(f"{schema['minimum']} to {schema['maximum']}.")
    if schema.get("type") == "array":
        parts.append("A JSON list.")
    default = schema.get("default")
    if default is not None:
        shown = ("no", "yes")[default] if isinstance(default, bool) else default
        parts.append(f"Left out: {shown}.")
    return " ".join(part for part in parts if part)


def _label(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    text = words(name)
    return f"{text.removesuffix(' usd')}, USD" if text.endswith(" usd") else text


def _value(leaf: Leaf, value: Any) -> Any:
    kind = leaf.schema.get("type")
    if kind == "boolean":
        return value == "true"
    if kind == "integer" and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _pretty(value) if isinstance(value, list | dict) else str(value)


def _find(document: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(document, dict) or part not in document:
            return None
        document = document[part]
    return document


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
