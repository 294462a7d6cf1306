"""The page with a crash storm's figures, written by the storm itself so that it cannot differ."""

from __future__ import annotations

from typing import Any

_PAGE = """\
# Crash storm

`make storm-crash` makes this page and [crash-storm.json](crash-storm.json); three to six minutes.
A short form runs in `make test` (`tests/crash/test_crash_short.py`), and the cut connections of
`tests/crash/test_cut_connections.py` with it.

A new durable PostgreSQL, gunicorn with {workers} workers as `make run` starts it, a tenant with
budgets, credits and a policy, and {clients} clients that ask gates, ask old keys again, and settle
what they hold. A client keeps every answer that it got, and sends what was not answered again with
the same key. Meanwhile, one after the other in random order (seed {seed}), something is killed.

Result: **{verdict}** in {seconds} s of storm, on {cores} cores, Python {python}, PostgreSQL
{postgresql}, with fsync, synchronous_commit and full_page_writes on.

## What was killed, and when there was service again

Service is a gate answered by evaluation, asked after the fault. For a database stop (immediate, then
a second of nothing) the clock starts with the start of the server; for everything else with the kill.
The limit is 5 seconds.

| fault | killed | median (s) | max (s) |
| --- | ---: | ---: | ---: |
{kills}

Sessions that were ended in the middle of a transaction: {in_transaction}. Slowest answer of all: {slowest} s.

## What the clients saw

No answer was a 500; every status but those below fails the storm.

| seen | times |
| --- | ---: |
{counts}

- *interrupted requests*: sent, and the connection broke before the answer.
- *found again after a lost answer*: the first answer that a client got for its key was `replayed`: the
  decision had been made and its answer was lost with the process.
- *fail-safe answers*: the database did not answer; the same key was evaluated when it did.

## What was compared afterwards

| compared | result |
| --- | ---: |
{checked}

Besides: every key asked again over HTTP gives the acknowledged answer (but `replayed`), no key was
decided twice, no decision exists that nobody was told of, no reservation is without a decision and no
reserving decision without its reservation, kept totals are the sums of their lines, no transaction
is open and no lock is left. The comparison is shown a lost and a changed answer, and must find both.

The storm also fails when it was too weak: fewer kills than planned, no request interrupted, no
fail-safe answer, no session ended in a transaction, no answer lost.
"""


def render_page(report: dict[str, Any]) -> str:
    """Return the page of a report."""
    plan, machine = report["plan"], report["machine"]
    kills = (
        (kind, str(count), *_times(report["service_again_seconds"].get(kind)))
        for kind, count in report["kills"].items()
    )
    problems = len(report["problems"])
    return _PAGE.format(
        workers=machine["gunicorn_workers"],
        clients=plan["clients"],
        seed=plan["seed"],
        verdict=f"failed, {problems} problems" if problems else "passed, no problem",
        seconds=report["storm_seconds"],
        cores=machine["cores"],
        python=machine["python"],
        postgresql=machine["postgresql"],
        kills=_rows(kills),
        in_transaction=report["sessions_ended_in_a_transaction"],
        slowest=report["slowest_answer_seconds"],
        counts=_rows((name, f"{count:,}") for name, count in report["counts"].items()),
        checked=_rows((name, _short(value)) for name, value in report["checked"].items()),
    )


def _rows(rows: Any) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _times(found: dict[str, Any] | None) -> tuple[str, str]:
    return ("", "") if found is None else (f"{found['median']:.2f}", f"{found['max']:.2f}")


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).partition(", head")[0]
