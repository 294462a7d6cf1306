"""The report: docs/ops/benchmarks.json, and the same as docs/benchmarks.md with charts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from tests.benchmarks.charts import Bar, render_bars

_OPTIONS: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_JSON: Final = Path("ops") / "benchmarks.json"
_PAGE: Final = "benchmarks.md"
_IMAGES: Final = Path("images")
_PROOF: Final = Path("ops") / "proof-benchmarks.json"
"""The figures of ``make bench-proof``, shown as one of the report's sections."""


@dataclass(frozen=True)
class Goal:
    """One goal of the project, and what was measured."""

    title: str
    text: str
    is_reached: bool


def merge(
    folder: Path, found: dict[str, Any], *, machine: dict[str, Any], quick: bool, step: str
) -> dict[str, Any]:
    """Return the report with the sections just measured in the place of their last figures."""
    path = folder / _JSON
    document: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    kept = document.get("sections", {}) if document.get("quick") == quick else {}
    sections = {**kept, **found}
    if (proof := folder / _PROOF).exists():
        sections["proof"] = orjson.loads(proof.read_bytes())
    steps = document.get("steps", {})
    if step:
        steps = {**steps, step: {**steps.get(step, {}), **summarise(found)}}
    return {
        "command": "make bench",
        "quick": quick,
        "machine": machine,
        "sections": sections,
        "steps": steps,
    }


def summarise(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the few figures by which one step is compared with the next."""
    figures: dict[str, Any] = {}
    for name in ("throughput", "half_load", "endpoints"):
        for case, series in sections.get(name, {}).get("cases", {}).items():
            if case.startswith(("gate", "preflight", "web", "floor")):
                figures.setdefault(case, series["rate"])
    if "throughput" in sections:
        figures["ratios"] = {
            case: round(value, 3) for case, value in ratios(sections["throughput"]).items()
        }
    if "decide" in sections:
        figures["decide_us"] = sections["decide"]["median_us"]
    return figures


def allowed(section: dict[str, Any], kind: str, clients: int) -> float:
    """Return L: what database and web allow together, 1 / (1/F + 1/W).

    F and W are what they reach at their best; one client is compared with one client.
    """
    cases, counts = section["cases"], (1,) if clients == 1 else (10, 64)
    floors, web = (
        max(cases[name]["rate"] for count in counts if (name := f"{case}_{count}") in cases)
        for case in (f"floor_{kind}", "web")
    )
    return float(1 / (1 / floors + 1 / web))


def ratios(section: dict[str, Any]) -> dict[str, float]:
    """Return the rate of each gate, and of the naive round trips, as a part of L."""
    found = {}
    for kind in ("hot", "spread"):
        for clients in (1, 10, 64):
            case = section["cases"].get(f"gate_{kind}_{clients}")
            if case is not None:
                found[f"gate_{kind}_{clients}"] = case["rate"] / allowed(section, kind, clients)
    return found


def goals(sections: dict[str, Any]) -> list[Goal]:
    """Return the goals that the measured sections speak to."""
    found = []
    if "throughput" in sections:
        part = ratios(sections["throughput"])
        for case, title, least in (
            ("gate_hot_10", "one hot tenant, 10 clients", 0.60),
            ("gate_spread_10", "many tenants, 10 clients", 0.50),
            ("gate_hot_64", "one hot tenant, 64 clients", 1.00),
        ):
            text = f"{part[case]:.2f} L, wanted at least {least:.2f}"
            found.append(Goal(title, text, part[case] >= least))
    if "half_load" in sections:
        cases = sections["half_load"]["cases"]
        times = cases["gate_hot_half"]["p99_ms"] / cases["gate_hot_1"]["p50_ms"]
        share = cases["gate_hot_half"]["rate"] / cases["gate_hot_10"]["rate"]
        text = (
            f"{times:.1f} times the median of one client, wanted at most 5; at {share:.2f} of what ten"
            f" clients got, {_LEAST_HALF} at least"
        )
        is_reached = times <= 5 and share >= _LEAST_HALF
        found.append(Goal("99th percentile at half of saturation", text, is_reached))
    if "history" in sections:
        found += _history_goals(sections["history"])
    if "proof" in sections:
        found += _proof_goals(sections["proof"])
    if "decide" in sections:
        section = sections["decide"]
        median = section["median_us"]
        text = (
            f"median {median:.0f} µs, {section['of_empty_view']:.2f} of what a view that does nothing took"
            f" in turn with it ({section['empty_view_us']:.0f} µs, without a server); wanted at most 100 µs"
        )
        found.append(Goal("decide alone, 20 rules, 5 in CEL", text, median <= 100))
    return found


def _history_goals(section: dict[str, Any]) -> list[Goal]:
    cases, verified = section["cases"], section["verified"]
    part = cases["gate_old_10"]["rate"] / cases["gate_young_10"]["rate"]
    entries = verified["entries"]
    million = verified["seconds"] * 1_000_000 / entries
    return [
        Goal(
            f"throughput after {section['decisions']:,} decisions",
            f"{part:.2f} of that after 1,000, wanted at least 0.90 after 1,000,000",
            part >= 0.9,
        ),
        Goal(
            f"verify_ledger of {entries:,} entries",
            f"{verified['seconds']:.0f} s at {verified['peak_mib']:.0f} MiB, or {million:.0f} s a"
            " million; wanted at most 60 s a million at 256 MiB",
            million <= 60 and verified["peak_mib"] <= 256,
        ),
    ]


def _proof_goals(section: dict[str, Any]) -> list[Goal]:
    speed, verified = section["export_speed_of_copy_to"], section["verify"]
    peak = max(section["export"]["peak_mib"], verified["peak_mib"])
    return [
        Goal(
            f"export of {section['rows']:,} rows",
            f"{speed:.2f} of the speed of COPY TO, wanted at least 0.25",
            speed >= 0.25,
        ),
        Goal(
            f"verification of {section['rows']:,} exported rows",
            f"{verified['seconds']:.0f} s, wanted at most 60; both at {peak:.0f} MiB, of 256",
            verified["seconds"] <= 60 and peak <= 256,
        ),
    ]


def write(folder: Path, document: dict[str, Any]) -> None:
    """Write the figures, the page and its charts."""
    (folder / _JSON.parent).mkdir(parents=True, exist_ok=True)
    (folder / _IMAGES).mkdir(parents=True, exist_ok=True)
    (folder / _JSON).write_bytes(orjson.dumps(document, option=_OPTIONS))
    for name, chart in charts(document).items():
        (folder / _IMAGES / f"{name}.svg").write_text(chart)
    (folder / _PAGE).write_text(render(document))


def charts(document: dict[str, Any]) -> dict[str, str]:
    """Return the charts that the measured sections make."""
    sections = document["sections"]
    found = {}
    if "throughput" in sections:
        section = sections["throughput"]
        part = ratios(section)
        marks = {"gate_hot_10": 0.60, "gate_spread_10": 0.50, "gate_hot_64": 1.00}
        found["benchmarks-ratios"] = render_bars(
            "The gate as a part of L, what database and web allow together",
            [
                Bar(_short(section, case), value, f"{value:.2f}", marks.get(case))
                for case, value in part.items()
            ],
        )
        found["benchmarks-throughput"] = render_bars(
            "Finished in a second, medians",
            [
                Bar(case["title"], case["rate"], f"{case['rate']:,.0f}", None)
                for case in section["cases"].values()
            ],
        )
    if document["steps"]:
        found["benchmarks-steps"] = render_bars(
            "Hot tenant, 10 clients, as a part of L, step by step",
            [
                Bar(name, ratio, f"{ratio:.2f}", None)
                for name, step in document["steps"].items()
                if (ratio := step.get("ratios", {}).get("gate_hot_10")) is not None
            ],
        )
    return found


def _short(section: dict[str, Any], case: str) -> str:
    return str(section["cases"][case]["title"])


_LEAST_HALF: Final = 0.45
"""Less of ten clients' rate is not half of saturation: the machine became faster meanwhile."""
_HEAD: Final = """\
# Benchmarks

Written by `make bench` with its figures in [ops/benchmarks.json](ops/benchmarks.json); `make bench
QUICK=1` only shows that everything still runs. What was changed and why is in
[performance.md](performance.md).

Load generator, web server and database share one machine: {cores} cores, Python {python},
PostgreSQL {postgresql} with synchronous_commit {synchronous_commit}, {workers} gunicorn workers as
`make run` starts them.{quick} Absolute figures move by a third from run to run; ratios inside one
section are what counts. Every answer was a 2xx, and every gate a decision that was allowed,
reserved and chained, or the run would have failed. The tables were in use before, and analysed, as
autovacuum does within a minute.

- **F**, the floor of the database: the rows of one gate, as long as the real ones, written by one
  function in one durable transaction and one round trip (pgbench, prepared).
- **W**, the floor of the web: a view of the REST framework that does nothing, under the same server
  and middleware.
- **L** = 1 / (1/F + 1/W): what both allow together.
"""


def render(document: dict[str, Any]) -> str:
    """Return the report as a page."""
    quick = " This is a quick run: one short round." if document["quick"] else ""
    parts = [_HEAD.format(**document["machine"], quick=quick)]
    found = goals(document["sections"])
    rows = [[one.title, one.text, "reached" if one.is_reached else "**missed**"] for one in found]
    parts.append("## Goals\n\n" + _table(["goal", "measured", ""], rows, right=()))
    sections = document["sections"]
    if "throughput" in sections:
        parts.append(_render_throughput(sections["throughput"]))
    for name, title in (("half_load", "Latency"), ("endpoints", "Other calls, 10 clients")):
        if name in sections:
            parts.append(f"## {title}\n\n{_case_table(sections[name])}")
    if "history" in sections:
        parts.append(_render_history(sections["history"]))
    if "proof" in sections:
        parts.append(_render_proof(sections["proof"]))
    if document["steps"]:
        parts.append(_render_steps(document["steps"]))
    return "\n\n".join(parts) + "\n"


def _render_throughput(section: dict[str, Any]) -> str:
    part = ratios(section)
    rows = [
        [
            section["cases"][case]["title"],
            f"{section['cases'][case]['rate']:,.0f}",
            f"{allowed(section, kind, int(clients)):,.0f}",
            f"{value:.2f}",
        ]
        for case, value in part.items()
        for _, kind, clients in [case.split("_")]
    ]
    return (
        "## Throughput\n\n"
        "![Ratios](images/benchmarks-ratios.svg)\n\n"
        + _table(["gate", "a second", "L", "part of L"], rows)
        + "\n\n![Throughput](images/benchmarks-throughput.svg)\n\n"
        + _case_table(section)
    )


def _render_history(section: dict[str, Any]) -> str:
    verified = section["verified"]
    return (
        f"## After {section['decisions']:,} decisions\n\n{_case_table(section)}\n\n"
        f"`manage.py verify_ledger` recomputed {verified['entries']:,} entries in"
        f" {verified['seconds']:.1f} s, at most {verified['peak_mib']:.0f} MiB resident."
    )


def _render_proof(section: dict[str, Any]) -> str:
    seconds = {
        "COPY TO of the same rows": section["copy_to_seconds"],
        "export": section["export"]["seconds"],
        "verify_export, without a database": section["verify"]["seconds"],
        f"verify_ledger of {section['ledger_entries']:,} entries": section[
            "verify_ledger_in_database_seconds"
        ],
        f"replay of {section['decisions']:,} decisions": section["replay_seconds"],
        f"simulation over {section['decisions']:,} decisions": section["simulate_seconds"],
    }
    longest = max(seconds.values())
    rows = [
        [name, f"{value:.1f}", f"`{'█' * max(1, round(value / longest * 30))}`"]
        for name, value in seconds.items()
    ]
    return (
        f"## Proof of {section['rows']:,} rows\n\n"
        f"`make bench-proof`, {section['csv_mb']:.0f} MB of CSV ({section['measured_at']}); figures"
        " in [ops/proof-benchmarks.json](ops/proof-benchmarks.json).\n\n"
        + _table(["what", "seconds", ""], rows, right=(1,))
    )


def _render_steps(steps: dict[str, Any]) -> str:
    rows = []
    for name, step in steps.items():
        part = step.get("ratios", {})
        rows.append(
            [name]
            + [
                f"{step[case]:,.0f} ({part[case]:.2f})" if case in part else ""
                for case in ("gate_hot_1", "gate_hot_10", "gate_hot_64", "gate_spread_10")
            ]
        )
    head = ["step", "hot, 1", "hot, 10", "hot, 64", "many tenants, 10"]
    return (
        "## Step by step\n\nGates a second, and in brackets the part of that run's own L.\n\n"
        "![Steps](images/benchmarks-steps.svg)\n\n" + _table(head, rows)
    )


def _case_table(section: dict[str, Any]) -> str:
    rows = [
        [
            case["title"],
            f"{case['rate']:,.0f}",
            (
                f"{min(one['rate'] for one in case['readings']):,.0f}"
                f"–{max(one['rate'] for one in case['readings']):,.0f}"
            ),
            f"{case['p50_ms']:.2f}",
            "" if case["p99_ms"] is None else f"{case['p99_ms']:.2f}",
        ]
        for case in section["cases"].values()
    ]
    note = (
        f"Medians of {section['rounds']} rounds of {section['seconds']:g} s, taken in turn"
        f" ({section['taken_at']}); pgbench gives a mean latency and no percentile."
    )
    head = ["what", "a second", "lowest–highest", "p50 (ms)", "p99 (ms)"]
    return f"{note}\n\n{_table(head, rows)}"


def _table(head: list[str], rows: list[list[str]], *, right: tuple[int, ...] | None = None) -> str:
    aligned = range(1, len(head)) if right is None else right
    rule = ["---:" if place in aligned else "---" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])
