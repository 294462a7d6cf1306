"""Walks along the links of the description: real ids, from each call's answer to the next call.

A walk begins with a call that needs nothing, and goes on from any answer it has had, the links that
were followed least first. What a link does not give is generated from the schema. Each answer passes
all of schemathesis's checks. A link has arrived when the call that it led to succeeded.
"""

from __future__ import annotations

import base64
import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup

from tests.crash.sending import Target, send
from tests.crash.stack import POLICY
from valdrix.kernel.signing import encode

CONFIGURATION: Final = Path(__file__).parent / "schemathesis.toml"
STEPS: Final = 10
OPEN_POLICY: Final = {
    **POLICY,
    "approvals": {"prod": {"required": 1, "separate_requester": False, "ttl_seconds": 86400}},
}
"""One person can ask and approve: the walk has one key."""

Members = Callable[[random.Random], Mapping[str, Any]]


def _gate(chance: random.Random) -> Mapping[str, Any]:
    # What no budget covers holds nothing while it waits, so that who withdrew it can ask again.
    project, amount = chance.choice(
        [("ample", "30.00"), ("ample", "7.0001"), ("tight", "9000.00"), ("tight", "9000.00")]
    )
    return {
        "project_id": project,
        "environment": chance.choice(["prod", "prod", "prod", "dev"]),
        "estimated_monthly_delta_usd": amount,
        "change_digest": chance.randbytes(32).hex(),
    }


def _name(chance: random.Random) -> str:
    return f"walk-{chance.randbytes(6).hex()}"


def _issuer(chance: random.Random) -> Mapping[str, Any]:
    return {
        "name": _name(chance),
        "project_id": "ample",
        "issuer": f"https://{_name(chance)}.test",
        "conditions": {"repository_id": str(chance.randrange(10**9))},
        "jwks": _key_set(chance),
    }


def _key_set(chance: random.Random) -> Mapping[str, Any]:
    key = {"kty": "OKP", "crv": "Ed25519", "kid": _name(chance), "use": "sig", "alg": "EdDSA"}
    return {"keys": [{**key, "x": encode(chance.randbytes(32))}]}


GIVEN: Final[Mapping[str, Members]] = {
    "gate_terraform": _gate,
    "gate_terraform_preflight": lambda chance: {**_gate(chance), "run_id": _name(chance)},
    "gate_k8s_admission": _gate,
    "gate_k8s_cluster_review": lambda chance: {
        "request": {
            "uid": _name(chance),
            "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "operation": "CREATE",
            "name": _name(chance),
            "namespace": "shop",
            "object": {"metadata": {"name": "x", "namespace": "shop"}},
        }
    },
    "approve": lambda _: {"reason": "walked"},
    "deny": lambda _: {"reason": "walked"},
    "reconcile_reservation": lambda chance: {
        "actual_monthly_delta_usd": chance.choice(["5.00", "30.00", "44.10"])
    },
    "create_budget": lambda chance: {"project_id": _name(chance), "monthly_limit_usd": "80.00"},
    "change_budget": lambda _: {"monthly_limit_usd": "90.00"},
    "grant_credit": lambda _: {"total_amount_usd": "100.00"},
    "issue_api_key": lambda chance: {"name": _name(chance), "role": "member", "scopes": []},
    "create_integration": lambda chance: {
        "kind": "cluster",
        "name": _name(chance),
        "settings": {"cluster": _name(chance)},
    },
    "register_workload_issuer": _issuer,
    "replace_workload_issuer_keys": lambda chance: {"jwks": _key_set(chance)},
    "create_reviewer_group": lambda chance: {"name": _name(chance)},
    "set_reviewer_group_members": lambda _: {"person_ids": []},
    "admit_member": lambda chance: {"username": _name(chance), "role": "member"},
    "change_role": lambda _: {"role": "admin"},
    "publish_policy": lambda _: {"policy_document": OPEN_POLICY},
    "simulate_policy": lambda _: {"policy_document": OPEN_POLICY},
}
"""Members of bodies that a walk says itself, where what is generated would lead nowhere."""

LEFT_OUT: Final = frozenset({
    "parent_decision_id", "expected_request_fingerprint", "dry_run", "idempotency_key", "stage",
    "estimated_hourly_delta_usd", "cost_estimate", "plan", "metadata", "hourly_delta_usd",
    "expected_project_id", "expected_environment", "review_mark", "max_monthly_delta_usd",
    "person_id", "expires_at", "projects", "window_start", "window_end", "rotate", "team",
    "environment", "action", "run_id", "cursor", "since", "project_id",
})  # fmt: skip
"""Members that are optional, and right only by chance: the other phases generate those."""


_ENDS: Final = re.compile("-> (deny|withdraw|revoke|remove|delete|unbind|void)")

_AGAIN: Final = "-> request_approval"


@dataclass
class Walked:
    """What became of the walks: each link by how often it was followed, and arrived."""

    links: Counter[str] = field(default_factory=Counter)
    arrived: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    chains: Counter[tuple[str, ...]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    walks: int = 0

    def rank(self, link: str) -> tuple[int, int]:
        """Return the order in which links are followed: the rarest, and last what ends things.

        Only an approval that ended can be asked for again.
        """
        last = 2 if link.endswith(_AGAIN) else 1 if _ENDS.search(link) else 0
        return self.links[link], last

    @property
    def never_arrived(self) -> list[str]:
        """Return the links whose call never succeeded."""
        return sorted(link for link in self.links if not self.arrived[link])

    @property
    def is_good(self) -> bool:
        """Tell whether nothing failed and every link led somewhere."""
        return bool(self.links) and not self.failures and not self.never_arrived

    def render(self) -> str:
        """Return what is to be said of the walks."""
        arrived, followed = len(self.links) - len(self.never_arrived), sum(self.links.values())
        longest = max((len(chain) for chain in self.chains), default=0)
        counts = (
            f"Links: {len(self.links)}, of which {arrived} arrived at least once; followed {followed}"
            f" times, arrived {sum(self.arrived.values())} times; longest chain {longest} calls"
        )
        lines = [
            f"Walks: {self.walks}; calls {sum(self.statuses.values())} {dict(self.statuses)}",
            counts,
            *(f"  never arrived: {link}" for link in self.never_arrived),
            *(f"  {count:>4} {refusal}" for refusal, count in self.refusals.most_common()),
            *self.failures,
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Answer:
    """One answer of a walk: whose, to what, and by which calls it was reached."""

    operation_id: str
    case: Any
    body: Any
    status: int
    chain: tuple[str, ...]


class Walker:
    """Walks along the links of one API."""

    def __init__(self, url: str, key: str, *, patience_seconds: int) -> None:
        self._patience_seconds = patience_seconds
        stated = tomllib.loads(CONFIGURATION.read_text())
        # The key that is given is the one that counts: no made-up credentials beside it.
        stated["generation"]["with-security-parameters"] = False
        self._headers = {"Authorization": f"Bearer {key}"}
        schema = schemathesis.openapi.from_url(
            f"{url}/api/schema", config=SchemathesisConfig.from_dict(stated)
        )
        found = [one.ok() for one in schema.get_all_operations()]
        self._operations = {one.definition.raw["operationId"]: one for one in found}
        self._links = {
            name: list(_links_of(one.definition.raw)) for name, one in self._operations.items()
        }
        led_to = {link["operationId"] for links in self._links.values() for _, link in links}
        roots = [name for name, links in self._links.items() if links and name not in led_to]
        # Most links lie behind a gate, and further from it.
        self._roots = roots + 4 * [name for name in roots if name.startswith("gate_")]
        named = {
            f"{name} -> {link['operationId']}" for name, ls in self._links.items() for _, link in ls
        }
        self.walked = Walked(links=Counter(dict.fromkeys(named, 0)))

    def walk(self, number: int, *, chances: int = 0) -> Walked:
        """Take a number of walks and return what became of them."""
        for each in range(number):
            self._walk_once(random.Random(f"{chances}/{each}"))
        return self.walked

    def _walk_once(self, chance: random.Random) -> None:
        root = self._roots[self.walked.walks % len(self._roots)]
        self.walked.walks += 1
        answers = [self._call(chance, root, {}, {}, ())]
        for _ in range(STEPS):
            ways = [
                (self.walked.rank(f"{one.operation_id} -> {link['operationId']}"),
                 chance.random(), one, link)
                for one in self._seen(answers, chance)
                for status, link in self._links[one.operation_id]
                if status == str(one.status)
            ]  # fmt: skip
            ways.sort(key=lambda way: way[:2])
            following = next((found for way in ways if (found := _resolve(*way[2:]))), None)
            if following is None:
                return
            source, link, parameters, body = following
            name = f"{source.operation_id} -> {link['operationId']}"
            self.walked.links[name] += 1
            answer = self._call(chance, link["operationId"], parameters, body, source.chain)
            self.walked.arrived[name] += answer.status < 300
            if answer.status >= 300:
                code = answer.body.get("code") if isinstance(answer.body, dict) else None
                self.walked.refusals[f"{name}: {answer.status} {code}"] += 1
            else:
                self.walked.chains[answer.chain] += 1
            answers.append(answer)

    def _seen(self, answers: list[Answer], chance: random.Random) -> list[Answer]:
        """Return the answers to go on from: all of them, or half of the time the newest."""
        newest = answers[-1:]
        leads_on = newest[0].status < 300 and self._links[newest[0].operation_id]
        return newest if leads_on and chance.random() < 0.5 else answers

    def _call(
        self,
        chance: random.Random,
        name: str,
        parameters: Mapping[str, Any],
        body: Mapping[str, Any],
        chain: tuple[str, ...],
    ) -> Answer:
        operation = self._operations[name]
        case = _generate(operation.as_strategy(), chance)
        if "requestBody" in operation.definition.raw:
            generated = case.body if isinstance(case.body, dict) else {}
            case.media_type = case.media_type or "application/json"
            case.body = {
                **_leave_out(generated, _required_of(operation.definition.raw)),
                **({} if name not in GIVEN else GIVEN[name](chance)),
                **body,
            }
            _fill(name, case.body)
        case.query = _leave_out(case.query or {}, frozenset())
        for one, value in parameters.items():
            where = case.path_parameters if one in (case.path_parameters or {}) else case.query
            where[one] = value
        response = case.call(headers=self._headers, timeout=self._patience_seconds)
        self.walked.statuses[response.status_code] += 1
        try:
            case.validate_response(response, headers=self._headers)
        except (FailureGroup, AssertionError) as failure:
            self.walked.failures.append(f"{operation.label}: {failure}")
        is_json = "json" in response.headers.get("content-type", [""])[0]
        parsed = orjson.loads(response.content) if is_json and response.content else None
        return Answer(name, case, parsed, response.status_code, (*chain, name))


def _generate(strategy: st.SearchStrategy[Any], chance: random.Random) -> Any:
    """Return one generated request; the first that Hypothesis makes is always the simplest."""
    made = []

    @seed(chance.getrandbits(64))
    @settings(
        max_examples=2,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def generate(case: Any) -> None:
        made.append(case)

    generate()
    return made[-1]


def _leave_out(members: Mapping[str, Any], required: frozenset[str]) -> dict[str, Any]:
    return {
        name: value for name, value in members.items() if name in required or name not in LEFT_OUT
    }


def _required_of(definition: Mapping[str, Any]) -> frozenset[str]:
    media = definition["requestBody"]["content"].values()
    return frozenset(name for one in media for name in one["schema"].get("required", ()))


def _links_of(definition: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (status, link)
        for status, response in definition["responses"].items()
        for link in response.get("links", {}).values()
    ]


def _resolve(
    source: Answer, link: Mapping[str, Any]
) -> tuple[Answer, Mapping[str, Any], dict[str, Any], dict[str, Any]] | None:
    """Return a link with its values, or None where the answer does not have them."""
    found = []
    for part in ("parameters", "requestBody"):
        values = {name: _value_of(one, source) for name, one in link.get(part, {}).items()}
        if None in values.values():
            return None
        found.append(values)
    return source, link, found[0], found[1]


def _value_of(expression: str, source: Answer) -> Any:
    """Return what a runtime expression stands for; None where there is nothing."""
    if expression.startswith("$request.path."):
        return source.case.path_parameters[expression.removeprefix("$request.path.")]
    value = source.body
    for member in expression.removeprefix("$response.body#/").split("/"):
        if isinstance(value, list):
            value = value[int(member)] if int(member) < len(value) else None
        else:
            value = value.get(member) if isinstance(value, dict) else None
    return value


def _fill(name: str, body: dict[str, Any]) -> None:
    """Say what only a token knows: which request was approved, and up to which amount."""
    if name != "consume_approval_token" or body["approval_token"].count(".") != 2:
        return
    claims = body["approval_token"].split(".")[1]
    said = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    body.pop("change_digest", None)
    body["expected_request_fingerprint"] = said["request_fingerprint"]
    body["monthly_delta_usd"] = said["max_monthly_delta_usd"]


def open_policy(target: Target) -> None:
    """Publish the policy under which one person can walk the whole way."""
    body = {"policy_document": OPEN_POLICY, "comment": "walk", "base_version": 1}
    reply = send(target, "PUT", "policies", body)
    assert reply.status == 200, reply
