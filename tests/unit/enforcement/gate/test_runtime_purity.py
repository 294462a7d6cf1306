"""While it decides, the core reaches for nothing outside; no process of ours has an LLM (BSAFE-001)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from enforcement.gate.decision import encode
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.unit.enforcement.gate.test_replay_stability import CONTEXTS, MODES, rich_policy

ROOT = Path(__file__).parents[4]
LLM_CLIENTS = (
    *("openai", "anthropic", "litellm", "langchain", "langchain_core", "llama_index", "cohere"),
    *("mistralai", "ollama", "transformers", "vertexai", "groq", "together", "huggingface_hub"),
)


def watched(*arguments: str) -> dict[str, Any]:
    pairs = [
        (encode(context), msgspec.json.encode(rich_policy(mode)).decode())
        for context in CONTEXTS.values()
        for mode in MODES
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.enforcement.gate.watched", *arguments],
        input=msgspec.json.encode(pairs),
        capture_output=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    assert found["outcomes"] == len(pairs)
    return found


def test_deciding_opens_no_file_and_no_socket_and_looks_at_no_clock() -> None:
    found = watched()
    assert found["same"] is True
    assert found["reached"] == []


def test_a_planted_look_outside_is_noticed() -> None:
    reached = set(watched("--plant")["reached"])
    assert {"time.time", "socket.__new__"} <= reached


def test_no_requirement_is_an_llm_client() -> None:
    names = {
        re.split(r"[=<>\[]", line)[0].strip().lower().replace("-", "_")
        for path in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / path).read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    }
    assert "django" in names
    assert not names & set(LLM_CLIENTS)


def test_a_process_that_answered_a_gate_has_loaded_no_llm_client(tenant: World) -> None:
    shop = Shop(tenant)
    shop.budget("100.00")
    assert shop.ask("1.00")["decision"] == "ALLOW"
    assert not {name.partition(".")[0] for name in sys.modules} & set(LLM_CLIENTS)
