"""Links of the description: each leads to a call that there is, by members that there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from valdrix.openapi import build_schema
from valdrix.openapi_links import LINKS, Link


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    paths = orjson.loads(build_schema())["paths"].values()
    return {operation["operationId"]: operation for path in paths for operation in path.values()}


def successes(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for status, one in operation["responses"].items() if status.startswith("2")]


def expressions(source: str, link: Link) -> Iterator[str]:
    yield from link.parameters.values()
    yield from link.body.values()


ALL = [(source, link) for source, links in LINKS.items() for link in links]


@pytest.mark.parametrize(("source", "link"), ALL, ids=[f"{s}-{link.target}" for s, link in ALL])
def test_a_link_leads_by_what_there_is_to_what_is_asked(
    operations: dict[str, Any], source: str, link: Link
) -> None:
    target, from_here = operations[link.target], operations[source]
    asked = {one["name"] for one in target.get("parameters", ())}
    assert set(link.parameters) <= asked
    needed = {one["name"] for one in target.get("parameters", ()) if one["in"] == "path"}
    assert needed <= set(link.parameters)
    for media in target.get("requestBody", {}).get("content", {}).values():
        assert set(link.body) <= set(media["schema"].get("properties", {}))
    for response in successes(from_here):
        assert response["links"][link.target]["operationId"] == link.target
        for expression in expressions(source, link):
            place, _, pointer = expression.partition("#/")
            if place == "$response.body":
                schema = response["content"]["application/json"]["schema"]
                assert has_member(schema, pointer.split("/")), expression
            else:
                name = expression.removeprefix("$request.path.")
                assert name in {one["name"] for one in from_here["parameters"]}


def has_member(schema: dict[str, Any], members: list[str]) -> bool:
    """Tell whether documents of a schema have a member, by its path."""
    for member in members:
        if member.isdigit():
            schema = schema["items"]
        elif member in schema.get("properties", {}):
            schema = schema["properties"][member]
        else:
            return False
    return True


def test_a_link_is_written_as_openapi_has_it() -> None:
    plain = Link("get_x", {"x_id": "$response.body#/id"}).to_document()
    assert plain == {"operationId": "get_x", "parameters": {"x_id": "$response.body#/id"}}
    with_body = Link("make_x", body={"of": "$response.body#/id"}).to_document()
    assert with_body["requestBody"] == {"of": "$response.body#/id"}
