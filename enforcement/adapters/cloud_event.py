"""CloudEvents 1.0 over HTTP: structured, batched and binary, read into one form. Pure.

Not by the ``cloudevents`` library: it parses data with the standard ``json``, which makes floats of
amounts and takes the last of two equal keys, before anything here could look at it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from valdrix.kernel import strict_json
from valdrix.kernel.fields import as_integer
from valdrix.kernel.problems import FieldError, InvalidRequest, Refused, escape_pointer

SPEC_VERSION: Final = "1.0"
BATCHED: Final = "batched"
STRUCTURED: Final = "structured"
BINARY: Final = "binary"
HEADER_PREFIX: Final = "ce-"

MEDIA_TYPE: Final = "application/cloudevents"
BATCH_MEDIA_TYPE: Final = "application/cloudevents-batch"

_REQUIRED: Final = ("id", "source", "specversion", "type")
_TEXTS: Final = (*_REQUIRED, "datacontenttype", "dataschema", "subject", "time")
_VALUE_LIMIT: Final = 2000
_ATTRIBUTES_LIMIT: Final = 100
_NAME: Final = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
# Beyond ASCII anything goes: producers write IRIs. What no reference may hold is refused.
_REFERENCE: Final = re.compile(r"[^\s<>\"{}|\\^`]+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_CONTENT_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:\s*;[^\x00-\x1f]*)?", re.ASCII
)
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:)([0-9]{2})(?:\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_PERCENT: Final = re.compile(r"%([0-9A-Fa-f]{2})", re.ASCII)
_REFUSAL: Final = "This is not a CloudEvent of version 1.0."
_INT32: Final = (-(2**31), 2**31 - 1)


class InvalidEvent(InvalidRequest):
    """A body was read but is not a CloudEvent of version 1.0 (422)."""


class UnsupportedFormat(Refused):
    """The event comes in a format that is not read here (415)."""

    code = "unsupported_media_type"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, however it came.

    :ivar attributes: its context attributes by name, extensions included.
    :ivar has_data: False where there is none; ``null`` is data.
    :ivar data: its data as a JSON value, or as bytes where it is no JSON.
    """

    attributes: dict[str, str | bool | int]
    has_data: bool
    data: Any

    def text(self, name: str) -> str:
        """Return an attribute's canonical string, empty where it is absent."""
        value = self.attributes.get(name, "")
        return str(value).lower() if isinstance(value, bool) else str(value)


def find_mode(content_type: str, *, has_attributes: bool) -> str:
    """Return the content mode of a request.

    :param content_type: the header, parameters included.
    :param has_attributes: whether a ``ce-specversion`` header came with it.
    :raises UnsupportedFormat: for an event format other than JSON, or another charset.
    """
    media, _, parameters = content_type.lower().partition(";")
    media = media.strip()
    if not media.startswith(MEDIA_TYPE):
        # JSON without any attribute in a header can only be an event that was sent as plain JSON.
        is_plain = _is_json(media) and not has_attributes
        return STRUCTURED if is_plain else BINARY
    base, _, suffix = media.partition("+")
    charset = _charset(parameters)
    if base not in {MEDIA_TYPE, BATCH_MEDIA_TYPE} or suffix != "json" or charset not in _UTF8:
        raise UnsupportedFormat("Events are read as JSON in UTF-8, or in binary mode.")
    return BATCHED if base == BATCH_MEDIA_TYPE else STRUCTURED


_UTF8: Final = frozenset({"", "utf-8", "utf8"})


def read_structured(document: object, *, pointer: str = "") -> Event:
    """Return the event that a JSON document is.

    :raises InvalidEvent: with every fault.
    """
    if not isinstance(document, dict):
        fault = FieldError(pointer, "invalid_type", "must be an object")
        raise InvalidEvent(_REFUSAL, errors=(fault,))
    faults = _Faults(pointer)
    members = {name: value for name, value in document.items() if name not in _DATA}
    attributes = _read_attributes(members, faults)
    content_type = attributes.get("datacontenttype")
    is_json = content_type is None or _is_json(str(content_type))
    has_data, data = "data" in document, document.get("data")
    encoded = document.get("data_base64")
    if encoded is not None:
        if has_data:
            faults.add("data_base64", "cannot stand beside data")
        data = _decode_data(encoded, faults, is_json=is_json and content_type is not None)
        has_data = True
    elif isinstance(data, str) and not is_json:
        data = data.encode()
    faults.finish()
    return Event(attributes=attributes, has_data=has_data, data=data)


_DATA: Final = frozenset({"data", "data_base64"})


def read_binary(headers: Mapping[str, str], content_type: str, body: bytes) -> Event:
    """Return the event whose attributes are headers and whose data is the body.

    :param headers: all headers of the request; those below ``ce-`` are read, in any case.
    :raises InvalidEvent: with every fault; its pointers name attributes.
    """
    faults = _Faults("")
    members: dict[str, Any] = {}
    for header, value in headers.items():
        name = header.lower().removeprefix(HEADER_PREFIX)
        if name == header.lower():
            continue
        if name in {"datacontenttype", *_DATA}:
            faults.add(name, "must not be a header: the content type and the body are it")
            continue
        try:
            members[name] = decode_header(value)
        except ValueError as error:
            faults.add(name, str(error))
    if content_type:
        members["datacontenttype"] = content_type
    attributes = _read_attributes(members, faults)
    data: Any = body
    if body and _is_json(content_type):
        data = _parse(body, faults, "")
    faults.finish()
    return Event(attributes=attributes, has_data=bool(body), data=data)


def decode_header(value: str) -> str:
    """Return the attribute that a header's value spells (HTTP binding, 3.1.3.2).

    Quoted strings are taken out of their quotes, then percent-encoding is undone once.

    :raises ValueError: for what is not UTF-8 then, or was not ASCII before.
    """
    if not value.isascii():
        raise ValueError("must be percent-encoded beyond ASCII")
    unquoted = _QUOTED.sub(lambda match: _ESCAPED.sub(r"\1", match[1]), value.strip(" \t"))
    octets = _PERCENT.sub(lambda match: chr(int(match[1], 16)), unquoted).encode("latin-1")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 once it is percent-decoded") from None


class _Faults:
    """Gathers what is wrong with one event."""

    def __init__(self, pointer: str) -> None:
        self._pointer = pointer
        self._errors: list[FieldError] = []

    def add(self, name: str, detail: str, *, code: str = "invalid_value") -> None:
        pointer = f"{self._pointer}/{escape_pointer(name[:80])}" if name else self._pointer
        self._errors.append(FieldError(pointer, code, detail))

    def finish(self) -> None:
        if self._errors:
            raise InvalidEvent(_REFUSAL, errors=tuple(self._errors))


def _read_attributes(members: Mapping[str, Any], faults: _Faults) -> dict[str, str | bool | int]:
    """Read context attributes; null is the same as absent."""
    found: dict[str, str | bool | int] = {}
    if len(members) > _ATTRIBUTES_LIMIT:
        faults.add("", f"must have at most {_ATTRIBUTES_LIMIT} attributes", code="too_long")
        return found
    for name, given in members.items():
        value = as_integer(given)
        fault = None if value is None else _find_fault(name, value)
        if fault is not None:
            faults.add(name, fault)
        elif value is not None:
            found[name] = value
    for name in _REQUIRED:
        if members.get(name) is None:
            faults.add(name, "is required", code="required")
    if found.get("specversion", SPEC_VERSION) != SPEC_VERSION:
        faults.add("specversion", f"must be {SPEC_VERSION}")
    return found


def _find_fault(name: str, value: object) -> str | None:
    """Return what is wrong with an attribute, or None."""
    if not _NAME.fullmatch(name):
        return "is not an attribute's name: lower-case letters and digits only"
    if isinstance(value, bool):
        return "must be a string" if name in _TEXTS else None
    if isinstance(value, int):
        least, most = _INT32
        in_range = least <= value <= most
        return None if name not in _TEXTS and in_range else "must be a string"
    if not isinstance(value, str):
        return "must be a string, a boolean or an integer of 32 bits"
    if len(value) > _VALUE_LIMIT:
        return f"must have at most {_VALUE_LIMIT} characters"
    if _CONTROL.search(value) or any(ord(one) & 0xFFFE == 0xFFFE for one in value):
        return "must not hold control characters or noncharacters"
    return _find_text_fault(name, value) if name in _TEXTS else None


def _find_text_fault(name: str, value: str) -> str | None:
    if not value:
        return "must not be empty"
    if name == "source" and not _REFERENCE.fullmatch(value):
        return "must be a URI reference"
    if name == "dataschema" and not (_SCHEME.match(value) and _REFERENCE.fullmatch(value)):
        return "must be an absolute URI"
    if name == "datacontenttype" and not _CONTENT_TYPE.fullmatch(value):
        return "must be a media type"
    if name == "time" and not _is_time(value):
        return "must be a time of RFC 3339"
    return None


def _is_time(value: str) -> bool:
    match = _TIME.fullmatch(value)
    if match is None:
        return False
    # A leap second is legal, and unknown to Python.
    seconds = "59" if match[2] == "60" else match[2]
    try:
        datetime.fromisoformat(f"{match[1]}{seconds}{match[3]}".upper())
    except ValueError:
        return False
    return True


def _decode_data(encoded: object, faults: _Faults, *, is_json: bool) -> Any:
    if not isinstance(encoded, str):
        faults.add("data_base64", "must be a string", code="invalid_type")
        return None
    try:
        octets = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        faults.add("data_base64", "must be base64")
        return None
    return _parse(octets, faults, "data_base64") if is_json else octets


def _parse(octets: bytes, faults: _Faults, name: str) -> Any:
    try:
        return strict_json.loads(octets, max_values=_DATA_VALUES)
    except strict_json.StrictJsonError as error:
        faults.add(name, f"is not the JSON that its content type says: {error}")
        return None


_DATA_VALUES: Final = 100_000


def _is_json(content_type: str) -> bool:
    media, _, parameters = content_type.lower().partition(";")
    media = media.strip()
    named = media in {"application/json", "text/json"} or media.endswith("+json")
    return named and _charset(parameters) in _UTF8


def _charset(parameters: str) -> str:
    found = parameters.partition("charset=")[2].partition(";")[0]
    return found.strip(' "\t')
