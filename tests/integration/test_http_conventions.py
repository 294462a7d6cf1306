"""What every answer has in common: problems, request ids, bounds of bodies, the description."""

import io
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.validation import validate_schema

from tests.client import Api
from tests.factories.tenants import World
from tests.integration.gunicorns import running_gunicorn
from valdrix.kernel import request_context
from valdrix.kernel.problems import STATUS_BY_CODE
from valdrix.openapi import ValdrixSchemaGenerator
from valdrix.settings.logs import JsonFormatter

PROJECT = Path(__file__).parents[2]
KEYS = "/api/v1/enforcement/api-keys"
MEGABYTE = 1024 * 1024


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:valdrix:problem:{code}"
    assert body["request_id"] == response["X-Request-ID"]
    return body


# Paths, methods, media types


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/v1/",
        "/api/v1/enforcement",
        "/api/v1/enforcement/nothing",
        "/api/v1/enforcement/members/",
        "/api/schema/",
        "/api/%00",
        "/api/%ff%fe",
        "/api/%ED%A0%80",
        "/api/" + "1" * 5000,
        "/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"])
def test_a_path_that_is_none_is_a_404_problem(api: Api, method: str, path: str) -> None:
    response = api.send(method, path)
    assert response.status_code == 404
    if method != "HEAD":
        problem(response, 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_method_that_is_none_is_405_and_names_those_that_are(
    api: Api, tenant: World, method: str
) -> None:
    response = api.send(method, KEYS, {}, key=tenant.owner.key)
    problem(response, 405, "method_not_allowed")
    assert {"GET", "POST", "HEAD", "OPTIONS"} == {
        *(name.strip() for name in response["Allow"].split(","))
    } | {"HEAD"}


def test_head_is_get_without_a_body(api: Api, tenant: World) -> None:
    response = api.send("HEAD", KEYS, key=tenant.owner.key)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response["Content-Length"]) > 2
    assert api.send("HEAD", KEYS).status_code == 401


def test_options_is_answered_to_those_who_may_ask(api: Api, tenant: World) -> None:
    response = api.send("OPTIONS", KEYS, key=tenant.owner.key)
    assert response.status_code == 200
    assert "POST" in response["Allow"]
    assert "Access-Control-Allow-Origin" not in response
    problem(api.send("OPTIONS", KEYS), 401, "not_authenticated")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/vnd.api+json",
        "json",
        "",
    ],
)
def test_another_media_type_is_415(api: Api, tenant: World, content_type: str) -> None:
    response = api.post(
        KEYS, b'{"name": "x", "role": "member"}', key=tenant.owner.key, content_type=content_type
    )
    problem(response, 415, "unsupported_media_type")


def test_json_with_a_charset_is_json(api: Api, tenant: World) -> None:
    response = api.post(
        KEYS,
        {"name": "x", "role": "member"},
        key=tenant.owner.key,
        content_type="application/json; charset=utf-8",
    )
    assert response.status_code == 201


def test_another_accept_is_406(api: Api, tenant: World) -> None:
    response = api.get(KEYS, key=tenant.owner.key, headers={"Accept": "text/csv"})
    problem(response, 406, "not_acceptable")


def test_a_host_that_is_not_ours_is_a_400_problem() -> None:
    response = Client(headers={"Host": "evil.test"}).get("/health/live")
    problem(response, 400, "malformed_request")


def test_a_wrong_header_comes_before_a_wrong_body(api: Api, tenant: World) -> None:
    problem(api.post(KEYS, b"{", content_type="text/plain"), 401, "not_authenticated")
    problem(api.post(KEYS, b"{", key=tenant.member.key), 403, "role_missing")


def test_every_code_has_a_status_of_its_kind() -> None:
    assert all(400 <= status <= 504 for status in STATUS_BY_CODE.values())
    assert all(re.fullmatch(r"[a-z][a-z_]+", code) for code in STATUS_BY_CODE)
    text = (PROJECT / "docs/api/conventions.md").read_text()
    undocumented = [
        code for code, status in STATUS_BY_CODE.items() if f"`{code}` | {status} |" not in text
    ]
    assert undocumented == []


# Request ids and logs


@pytest.mark.parametrize("offered", ["abc", "A-1.b_c:d", "x" * 128])
def test_a_sound_request_id_comes_back(api: Api, offered: str) -> None:
    response = api.get("/api/nothing", headers={"X-Request-ID": offered})
    assert response["X-Request-ID"] == offered
    assert response.json()["request_id"] == offered


@pytest.mark.parametrize("offered", ["", " ", "a b", "x" * 129, "é", "<script>", "a\x00", '"'])
def test_another_request_id_is_replaced(api: Api, offered: str) -> None:
    response = api.get("/health/live", headers={"X-Request-ID": offered})
    assert re.fullmatch(r"[0-9a-f-]{36}", response["X-Request-ID"])


def test_request_ids_differ_and_end_with_their_request(api: Api) -> None:
    first, second = (api.get("/health/live")["X-Request-ID"] for _ in range(2))
    assert first != second
    assert request_context.current_request_id() is None


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)


def test_log_lines_are_json_with_the_request_id_and_no_secret(
    tenant: World, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    key, token = tenant.owner.key, request_context.request_id.set("r-1")
    try:
        try:
            int(f"Authorization: Bearer {key}")
        except ValueError:
            logging.getLogger("valdrix.test").exception("failed for %s\nand %s", key, {"k": key})
    finally:
        request_context.request_id.reset(token)
    logging.getLogger("valdrix.test").warning("bearer abc.def.ghi and vdx_%s", "short")
    first, second = log_lines()
    assert first["request_id"] == "r-1"
    assert (first["level"], first["logger"]) == ("error", "valdrix.test")
    assert "ValueError" in first["exception"]
    assert key not in json.dumps(first)
    assert key.split("_")[2] not in json.dumps(first)
    assert "request_id" not in second
    assert "abc.def" not in second["message"]
    assert "vdx_short" not in second["message"]


# The description


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    GENERATOR_STATS.reset()
    made: dict[str, Any] = ValdrixSchemaGenerator().get_schema(request=None, public=True)
    return made


def test_the_description_is_valid_and_complete(schema: dict[str, Any]) -> None:
    assert schema["openapi"] == "3.1.0"
    validate_schema(schema)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache


def test_every_operation_names_its_security_and_its_refusals(schema: dict[str, Any]) -> None:
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    seen = []
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            seen.append(operation["operationId"])
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Refused"}
            wanted = [{"bearer": []}, {"apiKeyHeader": []}] if path.startswith("/api/") else [{}]
            if path.endswith("/review/{integration_id}"):
                wanted = [{"clusterBearer": []}, {"clusterApiKeyHeader": []}]
            if path.endswith("/run-task/{integration_id}"):
                wanted = [{"runTaskSignature": []}]
            assert operation.get("security") == wanted, path
    assert len(seen) == len(set(seen))
    codes = schema["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == sorted(STATUS_BY_CODE)


def test_the_description_is_served_to_everybody(api: Api, schema: dict[str, Any]) -> None:
    response = api.get("/api/schema")
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    assert response.json() == schema


def test_the_page_of_the_description_answers_no_other_method(api: Api) -> None:
    for method in ("OPTIONS", "POST", "TRACE"):
        answer = api.send(method, "/api/docs")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), method


def test_the_docs_need_no_other_server(api: Api) -> None:
    response = api.get("/api/docs", headers={"Accept": "text/html"})
    assert response.status_code == 200
    text = response.content.decode()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert '"validatorUrl":null' in text
    files = re.findall(r'(?:src|href)="/static/([^"]+)"', text)
    assert len(files) == 4
    for name in files:
        assert finders.find(name), name


# Over a real socket


@dataclass
class Server:
    address: tuple[str, int]
    log: Path
    seen: int = 0

    def said(self) -> str:
        """Return what the log says since the test began."""
        return self.log.read_bytes()[self.seen :].decode()

    def send(self, head: str, *chunks: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Send a whole request before reading anything, and read to the end."""
        with socket.create_connection(self.address, timeout=30) as peer:
            peer.sendall(head.replace("\n", "\r\n").encode("latin-1"))
            for chunk in chunks:
                peer.sendall(chunk)
            with peer.makefile("rb") as answer:
                status = int(answer.readline().split()[1])
                headers = {}
                while line := answer.readline().strip():
                    name, _, value = line.decode().partition(": ")
                    headers[name.lower()] = value
                body = answer.read(int(headers["content-length"]))
        return status, headers, json.loads(body)


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_gunicorn(log, "--workers=1", "--graceful-timeout=1") as (address, _):
        found = Server(address, log)
        assert found.send("GET /health/ready HTTP/1.1\nHost: localhost\n\n")[0] == 200
        yield found


@pytest.fixture
def server(running: Server) -> Server:
    """Give the server of all these tests, with this test's part of its log."""
    return replace(running, seen=running.log.stat().st_size)


def head(key: str | None, **headers: Any) -> str:
    lines = [f"POST {KEYS} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\n".join(lines) + "\n\n"


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [
        ("owner", 413, "body_too_large"),
        ("member", 403, "role_missing"),
        (None, 401, "not_authenticated"),
    ],
)
def test_a_body_too_large_is_answered_before_the_connection_closes(
    server: Server, tenant: World, who: str | None, status: int, code: str
) -> None:
    key = None if who is None else getattr(tenant, who).key
    start = time.monotonic()
    got, headers, body = server.send(
        head(key, Content_Length=12 * MEGABYTE), *[b" " * MEGABYTE] * 12
    )
    assert (got, body["code"]) == (status, code)
    assert headers["x-request-id"] == body["request_id"]
    assert time.monotonic() - start < 5


def test_bounds_and_lengths_over_a_socket(server: Server, tenant: World) -> None:
    key = tenant.owner.key
    most = 10 * MEGABYTE
    document = b'{"name": "' + b"n" * (most - 32) + b'", "role": "member"}'
    assert len(document) <= most
    padded = document + b" " * (most - len(document))
    status, _, body = server.send(head(key, Content_Length=most), padded)
    assert (status, body["errors"][0]["code"]) == (422, "too_long")
    status, _, body = server.send(head(key, Content_Length=most + 1), padded, b" ")
    assert (status, body["code"]) == (413, "body_too_large")
    chunked = head(key, Transfer_Encoding="chunked")
    sent = b'1f\r\n{"name": "x", "role": "member"}\r\n0\r\n\r\n'
    status, headers, body = server.send(chunked, sent)
    assert (status, body["code"]) == (411, "length_required")
    assert headers["content-type"] == "application/problem+json"
    small = b'{"name": "x", "role": "member"}'
    status, headers, body = server.send(head(key, Content_Length=len(small)), small)
    assert (status, headers["cache-control"]) == (201, "no-store")


UNREADABLE = (
    (f"GET /{'x' * 9_000} HTTP/1.1\nHost: localhost\n\n", 414, "uri_too_long"),
    (f"GET /{'x' * 300_000} HTTP/1.1\nHost: localhost\n\n", 414, "uri_too_long"),
    (f"GET / HTTP/1.1\nX-A: {'x' * 9_000}\n\n", 431, "header_fields_too_large"),
    ("GET / HTTP/1.1\n" + "X-A: xxx\n" * 120 + "\n", 431, "header_fields_too_large"),
    ("GET / HTTP/1.1\nHost: localhost\nExpect: xxx\n\n", 417, "expectation_failed"),
    ("xxx xxx\n\n", 400, "malformed_request"),
    ("GET / HTTP/1.1\nHost: localhost\nxxx xxx: 1\n\n", 400, "malformed_request"),
    ("GET /health HTTP/1.1\nAccept: xxx\n\n", 400, "malformed_request"),
    (
        "POST / HTTP/1.1\nHost: localhost\nIdempotency-Key: xxx\nidempotency-key: xxx\n\n",
        400,
        "malformed_request",
    ),
    (
        "POST / HTTP/1.1\nHost: localhost\nce-projectid: shop\nCE-ProjectId: xxx\n\n",
        400,
        "malformed_request",
    ),
    ("POST / HTTP/1.1\nTransfer-Encoding: xxx, chunked\n\n", 411, "length_required"),
)


def test_what_cannot_be_read_is_answered_like_every_refusal(server: Server) -> None:
    for request_head, status, code in UNREADABLE:
        got, headers, body = server.send(request_head)
        assert (got, body["code"], body["status"]) == (status, code, status)
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == body["request_id"]
        assert "xxx" not in json.dumps(body)
    assert "xxx" not in server.said()


def test_http_1_0_needs_no_host(server: Server) -> None:
    status, _, body = server.send("GET /health/live HTTP/1.0\n\n")
    assert (status, body) == (200, {"status": "ok"})


def test_the_server_s_log_has_no_key(server: Server, tenant: World) -> None:
    key = tenant.owner.key
    query = f"GET /api/v1/enforcement/members?api_key={key} HTTP/1.1\nHost: localhost\n\n"
    assert server.send(query)[0] == 401
    bad = f"GET /health HTTP/1.1\nHost: {key}.test\nAuthorization: Bearer {key}\n\n"
    assert server.send(bad)[0] == 400
    text = server.said()
    assert key not in text
    assert key.split("_")[2] not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [line["logger"] for line in lines] == ["django.security.DisallowedHost"]
    assert lines[0]["request_id"]
