"""CloudEvents as they come over HTTP: the binding's rules, in all three modes."""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.adapters.cloud_event import (
    BATCHED,
    BINARY,
    STRUCTURED,
    Event,
    InvalidEvent,
    UnsupportedFormat,
    decode_header,
    find_mode,
    read_binary,
    read_structured,
)
from enforcement.adapters.cloud_event_gate import data_sha256, shown_key, to_gate_request
from valdrix.kernel.problems import InvalidRequest
from valdrix.kernel.strict_json import loads

FIXTURES = Path(__file__).resolve().parents[5] / "shared" / "fixtures" / "cloudevents"
JSON = "application/json"
DATA = {"project_id": "shop", "resource_reference": "a.b", "estimated_monthly_delta_usd": "1.00"}


def a_document(**members: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/a", "type": "b.c", **members}


def some_headers(**attributes: str) -> dict[str, str]:
    return {f"Ce-{name.title()}": value for name, value in a_document(**attributes).items()}


def faults_of(call: Any, *args: Any, **more: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as refusal:
        call(*args, **more)
    assert refusal.value.status == 422
    return sorted(error.pointer for error in refusal.value.errors)


def ask(event: Event, header_key: str | None = None) -> Any:
    return to_gate_request(event, actor="key:1", header_key=header_key)


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        ("application/cloudevents+json", STRUCTURED),
        ("Application/CloudEvents+JSON; charset=UTF-8", STRUCTURED),
        ('application/cloudevents+json;charset="utf-8"', STRUCTURED),
        ("application/cloudevents-batch+json", BATCHED),
        ("application/cloudevents-batch+json; charset=utf-8", BATCHED),
        ("application/json", BINARY),
        ("text/plain", BINARY),
        ("", BINARY),
    ],
)
def test_the_mode_is_in_the_content_type(content_type: str, mode: str) -> None:
    assert find_mode(content_type, has_attributes=True) == mode


def test_plain_json_without_attributes_in_headers_is_a_structured_event() -> None:
    assert find_mode(JSON, has_attributes=False) == STRUCTURED
    assert find_mode("text/plain", has_attributes=False) == BINARY


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+avro",
        "application/cloudevents+protobuf",
        "application/cloudevents",
        "application/cloudevents-batch+xml",
        "application/cloudevents-other+json",
        "application/cloudevents+json; charset=utf-16",
    ],
)
def test_another_format_is_not_read(content_type: str) -> None:
    with pytest.raises(UnsupportedFormat) as refusal:
        find_mode(content_type, has_attributes=True)
    assert refusal.value.status == 415


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41%42", "AB"),
        ("%2541", "%41"),
        ('"a b"', "a b"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ('"a%20b"', "a b"),
        ('a"b c"d', "ab cd"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ('"', '"'),
        (" padded ", "padded"),
        ("", ""),
    ],
)
def test_a_header_is_taken_out_of_quotes_and_decoded_once(header: str, value: str) -> None:
    assert decode_header(header) == value


@pytest.mark.parametrize("header", ["%C0%A0", "%E2%82", "%ED%A0%80", "%FF", "€"])
def test_a_header_that_is_no_utf8_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match=r"UTF-8|ASCII"):
        decode_header(header)
    assert faults_of(read_binary, some_headers(subject=header), "", b"") == ["/subject"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_encoded_as_the_binding_says_comes_back(text: str) -> None:
    encoded = "".join(
        one if "!" <= one <= "~" and one not in '"%' else _percent(one) for one in text
    )
    assert decode_header(encoded) == text


def _percent(one: str) -> str:
    return "".join(f"%{octet:02X}" for octet in one.encode())


def test_binary_attributes_are_headers_and_data_are_the_body() -> None:
    headers = {**some_headers(subject="a%20b", myext="7"), "Accept": "*/*", "Content-Type": JSON}

    event = read_binary(headers, "application/json; charset=utf-8", b'{"a": 0.10}')

    assert event.attributes == {
        **a_document(subject="a b", myext="7"),
        "datacontenttype": "application/json; charset=utf-8",
    }
    assert event.data == loads(b'{"a": 0.10}')


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("", b"", b""),
        (JSON, b"", b""),
        ("text/plain; charset=us-ascii", b"Hello", b"Hello"),
        ("application/xml", b"<a/>", b"<a/>"),
        ("application/octet-stream", b"\xff\x00", b"\xff\x00"),
        (JSON, b'"text"', "text"),
        ("application/vnd.a+json", b"[1]", [1]),
        ("application/json; charset=utf-16", b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_only_json_data_are_looked_into(content_type: str, body: bytes, data: Any) -> None:
    event = read_binary(some_headers(), content_type, body)

    assert (event.data, event.has_data) == (data, bool(body))


@pytest.mark.parametrize("name", ["datacontenttype", "data", "data_base64"])
def test_what_the_message_itself_is_may_not_be_a_header(name: str) -> None:
    headers = {**some_headers(), f"ce-{name}": JSON}

    assert faults_of(read_binary, headers, JSON, b"{}") == [f"/{name}"]


@pytest.mark.parametrize("body", [b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff", b'"\\ud800"'])
def test_data_that_are_not_the_json_they_say_are_refused(body: bytes) -> None:
    assert faults_of(read_binary, some_headers(), JSON, body) == [""]
    encoded = base64.b64encode(body).decode()
    document = a_document(datacontenttype=JSON, data_base64=encoded)
    assert faults_of(read_structured, document) == ["/data_base64"]


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ({"data": {"a": 1}}, {"a": 1}),
        ({"data": None}, None),
        ({"data": '{"a": 1}'}, '{"a": 1}'),
        ({"data": "<a/>", "datacontenttype": "text/xml"}, b"<a/>"),
        ({"data_base64": "/wA=", "datacontenttype": "image/png"}, b"\xff\x00"),
        ({"data_base64": "eyJhIjogMX0=", "datacontenttype": JSON}, {"a": 1}),
        ({"data_base64": "/wA="}, b"\xff\x00"),
        ({"data": 1, "data_base64": None}, 1),
    ],
)
def test_structured_data(members: dict[str, Any], data: Any) -> None:
    event = read_structured(a_document(**members))

    assert (event.data, event.has_data) == (data, True)


def test_no_data_differ_from_null_data() -> None:
    absent, null = read_structured(a_document()), read_structured(a_document(data=None))

    assert (absent.has_data, null.has_data) == (False, True)
    assert data_sha256(absent) is None
    assert data_sha256(null) is not None


@pytest.mark.parametrize("members", [{"subject": None}, {"myext": None}, {"time": None}])
def test_null_is_the_same_as_absent(members: dict[str, Any]) -> None:
    assert read_structured(a_document(**members)) == read_structured(a_document())


FAULTS: dict[str, dict[str, Any]] = {
    "/id": {"id": ""},
    "/source": {"source": "has blanks"},
    "/specversion": {"specversion": "0.3"},
    "/type": {"type": None},
    "/time": {"time": "2026-02-30T00:00:00Z"},
    "/dataschema": {"dataschema": "relative/schema"},
    "/datacontenttype": {"datacontenttype": "json"},
    "/subject": {"subject": ""},
    "/data_base64": {"data": 1, "data_base64": "MQ=="},
    "/My-Ext": {"My-Ext": "a"},
    "/ext": {"ext": {"a": 1}},
    "/ext2": {"ext2": 2**31},
    "/ext3": {"ext3": "a\x07b"},
    "/ext4": {"ext4": "a\ufffeb"},
    "/ext5": {"ext5": "x" * 2001},
}


@pytest.mark.parametrize("pointer", FAULTS)
def test_what_is_no_event_names_its_fault(pointer: str) -> None:
    assert faults_of(read_structured, a_document(**FAULTS[pointer])) == [pointer]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 7),
        ("type", True),
        ("specversion", 1),
        ("time", "yesterday"),
        ("time", "2026-01-01"),
        ("time", "2026-01-01T00:00:00"),
        ("data_base64", "not base64!"),
        ("data_base64", 5),
    ],
)
def test_attributes_have_their_types(name: str, value: Any) -> None:
    assert faults_of(read_structured, a_document(**{name: value})) == [f"/{name}"]


def test_every_fault_is_named_at_once() -> None:
    document = {"specversion": "2", "source": "", "a b": 1}

    assert faults_of(read_structured, document, pointer="/3") == [
        "/3/a b",
        "/3/id",
        "/3/source",
        "/3/specversion",
        "/3/type",
    ]
    assert faults_of(read_structured, [1]) == [""]
    assert faults_of(read_structured, a_document(**{f"e{n}": "" for n in range(100)})) == [""]


@pytest.mark.parametrize(
    "time",
    [
        "2018-04-05T17:31:00Z",
        "2018-04-05t17:31:00.123456789z",
        "2018-04-05T17:31:00-07:00",
        "2016-12-31T23:59:60Z",
    ],
)
def test_times_of_rfc_3339_are_taken(time: str) -> None:
    assert read_structured(a_document(time=time)).text("time") == time


def test_one_event_has_one_digest_in_every_mode() -> None:
    data = {"b": "1.10", "a": [1, 0.5, "é"]}
    structured = read_structured(loads(_json(a_document(data=data))))
    encoded = base64.b64encode(_json(data)).decode()
    based = read_structured(a_document(datacontenttype=JSON, data_base64=encoded))
    binary = read_binary(some_headers(), JSON, _json(data))

    assert len({data_sha256(event) for event in (structured, based, binary)}) == 1


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def test_numbers_that_no_double_holds_are_still_told_apart() -> None:
    digests = {
        data_sha256(read_structured(loads(b'{"specversion":"1.0","data":%s,%s' % (number, REST))))
        for number in (b"0.10000000000000000001", b"0.10000000000000000002")
    }

    assert len(digests) == 2


REST = b'"id":"1","source":"/a","type":"b"}'


def test_an_event_asks_what_its_data_say() -> None:
    request = ask(read_structured(a_document(subject="ignored", data={**DATA, "other": [1]})))

    assert (request.source, request.project_id) == ("cloud_event", "shop")
    assert (request.action, request.resource_reference) == ("cloud_event.received", "a.b")
    assert str(request.cost.monthly_delta_usd) == "1.0000"
    assert request.idempotency_key == "cloudevent:/a:1"
    assert request.change_digest_is_computed is False
    assert "other" not in request.metadata
    assert set(request.metadata) == {
        "cloud_event_id",
        "cloud_event_source",
        "cloud_event_type",
        "cloud_event_subject",
        "cloud_event_data_sha256",
    }


def test_an_event_without_json_asks_by_its_extensions() -> None:
    headers = some_headers(
        projectid="shop",
        environment="dev",
        estimatedmonthlydeltausd="1.50",
        subject="database/orders",
        dryrun="true",
        unrelated="x",
    )

    request = ask(read_binary(headers, "text/plain", b"please"))

    assert (request.project_id, request.environment) == ("shop", "dev")
    assert request.resource_reference == "database/orders"
    assert str(request.cost.monthly_delta_usd) == "1.5000"
    assert (request.dry_run, request.idempotency_key) == (True, None)


@pytest.mark.parametrize(
    ("attributes", "data", "pointers"),
    [
        ({}, {}, ["/data/project_id"]),
        ({"projectid": "other"}, DATA, ["/projectid"]),
        ({"estimatedmonthlydeltausd": "1e3", "projectid": "a"}, {}, ["/estimatedmonthlydeltausd"]),
        ({"estimatedmonthlydeltausd": "2.00"}, DATA, ["/estimatedmonthlydeltausd"]),
        ({}, {**DATA, "action": "Opened"}, ["/data/action"]),
        ({}, {**DATA, "metadata": [1]}, ["/data/metadata"]),
        ({"dryrun": "maybe", "projectid": "a"}, {}, ["/dryrun"]),
        ({"parentdecisionid": "x", "projectid": "a"}, {}, ["/parentdecisionid"]),
    ],
)
def test_faults_are_named_where_they_came_from(
    attributes: dict[str, Any], data: dict[str, Any], pointers: list[str]
) -> None:
    assert faults_of(ask, read_structured(a_document(data=data, **attributes))) == pointers


def test_what_is_kept_of_an_event_cannot_be_forged_by_its_data() -> None:
    forged = {"cloud_event_data_sha256": "0" * 64, "cloud_event_id": "other", "ticket": "T-1"}

    request = ask(read_structured(a_document(data={**DATA, "metadata": forged})))

    assert request.metadata["cloud_event_id"] == "1"
    assert request.metadata["cloud_event_data_sha256"] != "0" * 64
    assert request.metadata["ticket"] == "T-1"


def test_keys_are_exact_though_they_are_shown_alike() -> None:
    one = read_structured(a_document(source="a:b", id="c", data=DATA))
    other = read_structured(a_document(source="a", id="b:c", data=DATA))

    assert shown_key(one) == shown_key(other) == "cloudevent:a:b:c"
    assert ask(one).idempotency_namespace != ask(other).idempotency_namespace


def test_a_long_key_is_shown_shortened_and_stays_exact() -> None:
    events = [
        read_structured(a_document(id="x" * 1000 + end, data=DATA)) for end in ("1", "2", "€")
    ]

    requests = [ask(event) for event in events]
    assert len({request.idempotency_namespace for request in requests}) == 3
    assert all(len(request.idempotency_key) <= 401 for request in requests)


def test_the_header_wins_over_the_events_own_key() -> None:
    event = read_structured(a_document(data={**DATA, "idempotency_key": "of the data"}))

    assert ask(event, header_key="of the header").idempotency_key == "of the header"
    assert ask(event).idempotency_key == "of the data"
    assert ask(event).idempotency_namespace == "caller"


def fixture(name: str) -> str:
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"{path} is absent: the documents of others are not part of the project")
    return path.read_text()


def test_the_conformance_cases_of_the_http_binding() -> None:
    """Every scenario and each of its examples, read from the feature file itself."""
    scenarios = fixture("http-protocol-binding.feature").split("Scenario Outline:")[1:]
    seen = 0
    for scenario in scenarios:
        examples = scenario.partition("Examples:")[2]
        content_types = [row.strip(" |") for row in examples.strip().splitlines()[1:]]
        message = re.search(r'request\n\s*"""\n(.*?)"""', scenario, re.DOTALL)
        assert message
        outcome = scenario.partition("Then")[2].partition("Examples:")[0]
        expected = dict(re.findall(r"\|\s*(\w+)\s*\|\s*(\S.*?)\s*\|\n", outcome))
        expected.pop("key")
        for content_type in content_types:
            head, _, body = message[1].replace("<contentType>", content_type).partition("\n\n")
            lines = [line.strip().partition(": ") for line in head.splitlines()[1:]]
            headers = {name: value for name, _, value in lines}
            event = _read(headers, body.strip().encode())
            wanted = {n: v.replace("<contentType>", content_type) for n, v in expected.items()}
            assert event.attributes == wanted
            assert event.data == {"message": "Hello World!"}
            seen += 1
    assert seen == 4


def _read(headers: dict[str, str], body: bytes) -> Event:
    content_type = headers["Content-Type"]
    if find_mode(content_type, has_attributes="ce-id" in headers) == STRUCTURED:
        return read_structured(loads(body))
    return read_binary(headers, content_type, body)


def test_the_minimum_events_of_the_conformance_suite() -> None:
    """Each event in binary and in structured mode is the same one."""
    events = fixture("v1_minimum.yaml").split("---\n")
    assert len(events) == 6
    for text in events:
        members = dict(re.findall(r"^  (\w+): (.*)$", text.partition("Data:")[0], re.MULTILINE))
        body = re.sub(r"^ +", "", text.partition("Data: |\n")[2], flags=re.MULTILINE).rstrip("\n")
        content_type = members.pop("datacontenttype")
        headers = {f"ce-{name}": value for name, value in members.items()}
        binary = read_binary(headers, content_type, body.encode())
        is_json = content_type.startswith(JSON)
        data = loads(body.encode()) if is_json else body
        structured = read_structured({**members, "datacontenttype": content_type, "data": data})
        assert binary == structured
        assert binary.text("id").startswith("conformance-000")


def test_the_schema_of_events_and_the_reader_agree_on_what_is_required() -> None:
    schema = loads(fixture("cloudevents.schema.json").encode())

    for name in schema["required"]:
        assert f"/{name}" in faults_of(read_structured, a_document(**{name: None}))
    with pytest.raises(InvalidEvent):
        read_structured({})


def test_an_integer_is_one_however_json_writes_it() -> None:
    read = read_structured(a_document(sequence=Decimal("-121931.0")))
    assert read.attributes["sequence"] == -121931
    assert faults_of(read_structured, a_document(sequence=Decimal("1.5"))) == ["/sequence"]
