"""A web process that dies in the middle of a gate: what it had in progress is counted and told."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time
import urllib.request

import pytest

from tests.crash.sending import Reply, send
from tests.crash.stack import Stack, running_stack

WITHIN_SECONDS = 20.0
GATE = {
    "project_id": "ample", "environment": "dev", "resource_reference": "x",
    "estimated_monthly_delta_usd": "1.00",
}  # fmt: skip


def scrape(stack: Stack) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def lost(stack: Stack) -> float:
    found = re.search(r"^valdrix_ops_requests_lost_total (\S+)$", scrape(stack), re.MULTILINE)
    assert found is not None
    return float(found[1])


def wait_for_the_lock(stack: Stack) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    until = time.monotonic() + WITHIN_SECONDS
    with stack.admin() as admin:
        while admin.execute(waiting).fetchone() == (0,):
            assert time.monotonic() < until, "no gate waits"
            time.sleep(0.01)


@pytest.mark.slow
def test_what_a_dead_process_had_in_progress_is_counted_and_told() -> None:
    # The gate waits long enough for its process to be killed meanwhile.
    patient = {
        "ENFORCEMENT_GATE_LOCK_TIMEOUT_MS": "15000",
        "ENFORCEMENT_GATE_TIMEOUT_MS": "20000",
    }
    with running_stack(patient) as stack, stack.admin() as admin:
        assert lost(stack) == 0
        ended: list[str] = []

        def ask() -> Reply:
            to = stack.target(stack.member_key)
            return send(to, "POST", "gate/terraform", GATE, idempotency_key="a")

        def ask_in_vain() -> None:
            try:
                ended.append(str(ask()))
            except (OSError, http.client.HTTPException) as error:
                ended.append(type(error).__name__)

        caller = threading.Thread(target=ask_in_vain)
        workers = stack.worker_pids()
        with admin.transaction():
            admin.execute("SELECT 1 FROM billing_account FOR UPDATE")
            caller.start()
            wait_for_the_lock(stack)
            for worker in workers:
                os.kill(worker, signal.SIGSEGV)
            caller.join(WITHIN_SECONDS)
        assert ended == ["RemoteDisconnected"]
        until = time.monotonic() + WITHIN_SECONDS
        while len(set(stack.worker_pids()) - set(workers)) < len(workers):
            assert time.monotonic() < until, "no others have taken their place"
            time.sleep(0.05)
        assert lost(stack) == 1
        assert "died with 1 requests in progress" in stack.web.log.read_text()
        again = ask()
        assert (again.status, again.body["decision"]) == (200, "ALLOW")
