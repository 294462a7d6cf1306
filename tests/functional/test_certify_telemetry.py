"""The certification in its minimal form, for real: a server of its own, broken nine times."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.factories.tenants import World
from valdrix.certification.telemetry.injections import MINIMAL
from valdrix.certification.telemetry.probes import PROBES
from valdrix.kernel.canonical import canonical_bytes

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_minimal_matrix_holds(tmp_path: Path) -> None:
    output = tmp_path / "c1.json"
    done = subprocess.run(
        [sys.executable, "manage.py", "certify_telemetry", "--minimal", f"--output={output}"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    final: dict[str, Any] = json.loads(output.read_text())
    assert final["executed_injections"] == list(MINIMAL)
    assert (final["phase"], final["failure_matrix"], final["violations"]) == ("C1", "MINIMAL", [])
    assert final["certification_ready"] is final["all_invariants_held"] is True
    assert final["planted_violations_noticed"] == ["I3", "I6"]
    said = final.pop("evidence_hash")
    assert said == f"sha256:{hashlib.sha256(canonical_bytes(final)).hexdigest()}"
    for document in final["injections"]:
        path = output.with_suffix("") / f"{document['injection_id']}.json"
        assert json.loads(path.read_text()) == document
        assert document["probes_run"] == list(PROBES)
        assert document["probes_passed"] == 15
        assert document["probes_passed_after_restoration"] == 15
        assert document["invariants_passed"] is document["replay_hash_verified"] is True
        assert document["figures"]["replayed"] == document["figures"]["gates"] >= 16


def test_it_is_used_rightly_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is no directory"):
        call_command("certify_telemetry", f"--output={tmp_path}/nowhere/c1.json")
    with pytest.raises(CommandError, match="--rows takes"):
        call_command("certify_telemetry", f"--output={tmp_path}/c1.json", "--rows=0")


def test_probes_are_named_and_need_a_key(tenant: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="no such probe: nothing"):
        call_command("probe_telemetry", "nothing")
    with pytest.raises(CommandError, match="or --all"):
        call_command("probe_telemetry")
    monkeypatch.delenv("VALDRIX_API_KEY", raising=False)
    with pytest.raises(CommandError, match="has no API key"):
        call_command("probe_telemetry", "ledger-verifies")
    monkeypatch.setenv("VALDRIX_API_KEY", tenant.owner.key[:-1] + "-")
    with pytest.raises(CommandError, match=r"API key|opens nothing"):
        call_command("probe_telemetry", "ledger-verifies")


def test_a_probe_passes_or_fails_by_its_exit_code(
    tenant: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VALDRIX_API_KEY", tenant.owner.key)
    call_command("probe_telemetry", "queue-is-bounded", "losses-are-counted", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["probe"], one["passed"]) for one in lines] == [
        ("queue-is-bounded", True), ("losses-are-counted", True),
    ]  # fmt: skip
    # Nobody serves there, and nothing was decided yet: these cannot pass.
    with pytest.raises(SystemExit) as ended:
        call_command(
            "probe_telemetry", "replay-does-not-read-telemetry", "o1-survives-telemetry-outage",
            "--base-url=http://127.0.0.1:1",
        )  # fmt: skip
    assert ended.value.code == 1
    assert "FAIL  replay-does-not-read-telemetry: ProbeFailed: nothing" in capsys.readouterr().out
