"""``capture_evidence ci_green`` and ``attestation``: of a real run and of a real commit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from governance.evidence.junit import Counts, JunitError, count_cases
from governance.evidence.materials import (
    BILLS,
    SOURCE,
    MaterialsError,
    compare,
    read_bill,
    read_pins,
)
from governance.evidence.registry import PROFILES, default_terms, verify_evidence
from valdrix.certification.commit import NoCommit, find_source_digest, read_commit
from valdrix.certification.green import CheckOrder, capture_ci_green, is_green
from valdrix.certification.provenance import AttestationOrder, capture_attestation
from valdrix.certification.sbom import build_bill
from valdrix.certification.scenarios import to_json
from valdrix.kernel.signing import encode, read_signing_key
from valdrix.kernel.strict_json import loads
from valdrix.management.commands.verify_evidence import build_world

ROOT = Path(__file__).parents[2]
KEY = read_signing_key(key_id="release-1", seed=encode(bytes(range(32))))
PLAIN = [
    f"-pno:{name}" for name in ("cacheprovider", "django", "schemathesis", "xdist", "pytest_cov")
]
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=ann", "-c", "user.email=ann@localhost")
    subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Give a small repository of one test and its requirements, committed."""
    root = tmp_path / "clone"
    root.mkdir()
    (root / "test_it.py").write_text("def test_it():\n    assert 1 + 1 == 2\n")
    (root / "requirements.txt").write_text(read_pinned("Django", "celery"))
    (root / "requirements-dev.txt").write_text("-r requirements.txt\n" + read_pinned("pytest"))
    (root / ".gitignore").write_text("__pycache__\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    return root


def read_pinned(*names: str) -> str:
    return "".join(f"{name}=={distribution(name).version}\n" for name in names)


def check(clone: Path, tmp_path: Path) -> dict[str, Any]:
    order = CheckOrder(
        root=clone,
        junit=tmp_path / "green.junit.xml",
        log=tmp_path / "green.log",
        command=(sys.executable, "-m", "pytest", "-q", *PLAIN, "test_it.py"),
    )
    return capture_ci_green(order, clock=now, tell=lambda _: None)


def verify_green(document: dict[str, Any], tmp_path: Path) -> list[str]:
    path = tmp_path / "green.json"
    path.write_text(to_json(document))
    profile = PROFILES["ci_green"]
    terms = {**default_terms(profile), "commit": document["commit"]}
    world = build_world(path, [])
    return [one.code for one in verify_evidence(profile, loads(path.read_bytes()), terms, world)]


def test_a_green_run_is_bound_to_its_commit_report_and_log(clone: Path, tmp_path: Path) -> None:
    document = check(clone, tmp_path)
    assert is_green(document)
    assert document["commit"] == read_commit(clone).id
    assert document["tests"] == {"passed": 1, "failed": 0, "skipped": 0}
    assert "1 passed" in (tmp_path / "green.log").read_text()
    assert verify_green(document, tmp_path) == []
    # The report of another run, as good as it may be, is not that of this one.
    other = (tmp_path / "green.junit.xml").read_bytes().replace(b"test_it", b"test_at")
    (tmp_path / "green.junit.xml").write_bytes(other)
    assert verify_green(document, tmp_path) == ["mismatch"]


def test_a_run_that_is_not_green_is_told_as_it_was(clone: Path, tmp_path: Path) -> None:
    (clone / "test_it.py").write_text(
        "import pytest\n\ndef test_it():\n    assert 1 == 2\n\n"
        "def test_more():\n    pytest.skip('x')\n"
    )
    git(clone, "commit", "-q", "-a", "-m", "two")
    document = check(clone, tmp_path)
    assert not is_green(document)
    assert document["tests"] == {"passed": 0, "failed": 1, "skipped": 1}
    # The exit code, no test that passed, one that failed, one that was skipped.
    assert sorted(verify_green(document, tmp_path)) == ["empty", "mismatch", "mismatch", "mismatch"]


def test_a_run_of_what_no_commit_has_is_no_evidence(clone: Path, tmp_path: Path) -> None:
    (clone / "test_it.py").write_text("def test_it():\n    assert 2 + 2 == 4\n")
    document = check(clone, tmp_path)
    assert document["tests"]["passed"] == 1
    assert not is_green(document)
    assert verify_green(document, tmp_path) == ["not_true"]
    with pytest.raises(NoCommit):
        check(tmp_path, tmp_path)


def test_a_run_that_is_stopped_leaves_nothing_running(clone: Path, tmp_path: Path) -> None:
    order = CheckOrder(
        root=clone,
        junit=tmp_path / "green.junit.xml",
        log=tmp_path / "green.log",
        command=("sh", "-c", "sleep 600 & echo $!; wait"),
    )
    started: list[int] = []

    def stop(line: str) -> None:
        started.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_ci_green(order, clock=now, tell=stop)
    for _ in range(1000):
        if not is_running(started[0]):
            break
        time.sleep(0.01)
    assert not is_running(started[0])


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_cases_are_counted_and_sums_not_believed() -> None:
    report = (
        b"<testsuites><testsuite tests='9' failures='0' skipped='0'><testcase/>"
        b"<testcase><failure/></testcase><testcase><error/></testcase>"
        b"<testcase><skipped/></testcase></testsuite></testsuites>"
    )
    assert count_cases(report) == Counts(passed=1, failed=2, skipped=1)
    for body in (b"", b"<a/>", b"{}", b"<!DOCTYPE a><testcase/>", b"<testcase>"):
        with pytest.raises(JunitError):
            count_cases(body)


def attest(clone: Path, folder: Path, settings: Any) -> dict[str, Any]:
    settings.BASE_DIR = clone
    order = AttestationOrder(folder, KEY)
    return capture_attestation(order, clock=now, tell=lambda _: None)


def verify_attestation(document: dict[str, Any], folder: Path, **terms: str) -> list[str]:
    path = folder / "attestation.json"
    path.write_text(json.dumps(document))
    profile = PROFILES["attestation"]
    world = build_world(path, [f"{KEY.key_id}={KEY.public_text}"])
    wanted = {**default_terms(profile), **terms}
    return [one.code for one in verify_evidence(profile, document, wanted, world)]


def test_what_is_installed_and_committed_is_attested(
    clone: Path, tmp_path: Path, settings: Any
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    document = attest(clone, folder, settings)
    commit = read_commit(clone).id
    assert verify_attestation(document, folder, commit=commit) == []
    first = {name: (folder / name).read_bytes() for name in (*BILLS, SOURCE)}
    attest(clone, folder, settings)
    assert {name: (folder / name).read_bytes() for name in first} == first, "the same again"

    # The next commit has other source and pins something else: the old statement is none of it.
    (clone / "requirements.txt").write_text("Django==5.2.18\n")
    git(clone, "commit", "-q", "-a", "-m", "two")
    assert set(verify_attestation(document, folder, commit=read_commit(clone).id)) == {
        "mismatch", "bill_mismatch",
    }  # fmt: skip
    with pytest.raises(MaterialsError, match=r"Django|django"):
        attest(clone, folder, settings)


def test_files_that_differ_from_the_commit_are_not_attested(
    clone: Path, tmp_path: Path, settings: Any
) -> None:
    (clone / "test_it.py").write_text("")
    with pytest.raises(MaterialsError, match="differ from the commit"):
        attest(clone, tmp_path, settings)
    assert not (tmp_path / SOURCE).exists()


def test_the_source_s_digest_is_that_of_its_archive(clone: Path) -> None:
    commit = read_commit(clone).id
    digest = find_source_digest(clone, commit)
    assert digest == find_source_digest(clone, commit)
    assert find_source_digest(clone, "0" * 40) is None
    assert find_source_digest(clone, "--output=/tmp/x") is None
    (clone / "more").write_text("x")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "two")
    assert find_source_digest(clone, read_commit(clone).id) != digest


def read_schema(name: str) -> dict[str, Any]:
    """Return a schema of the format as its own library ships it."""
    path = distribution("cyclonedx-python-lib").locate_file(f"cyclonedx/schema/_res/{name}")
    schema: dict[str, Any] = json.loads(Path(str(path)).read_text())
    return schema


def test_bills_of_this_project_are_cyclonedx_and_list_what_is_pinned() -> None:
    names = (
        "bom-1.6.SNAPSHOT.schema.json",
        "spdx.SNAPSHOT.schema.json",
        "jsf-0.82.SNAPSHOT.schema.json",
    )
    schema, *others = (read_schema(name) for name in names)
    registry: Registry[Any] = Registry().with_resources(
        [(one["$id"], Resource.from_contents(one)) for one in others]
    )
    for name, requirements in BILLS.items():
        pins = read_pins(requirements, lambda file: (ROOT / file).read_text())
        bill = build_bill(name, pins, version="1.0.0", commit="a" * 40, at=AT)
        errors = list(Draft7Validator(schema, registry=registry).iter_errors(bill))
        assert errors == []
        assert compare(read_bill(json.dumps(bill).encode()), pins) == []
        needs = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
        django = next(one["purl"] for one in bill["components"] if one["name"] == "Django")
        assert any(one.startswith("pkg:pypi/sqlparse@") for one in needs[django])
        assert set(needs) == {one["bom-ref"] for one in bill["components"]} | {
            "pkg:generic/valdrix@1.0.0"
        }
    broken = {**bill, "components": [{"type": "thing", "name": "x"}]}
    assert list(Draft7Validator(schema, registry=registry).iter_errors(broken)) != []


def test_requirements_that_pin_nothing_are_refused() -> None:
    files = {"a": "-r b\nx[y]==1  # why\n", "b": "Z_z==2\n", "c": "x>=1\n"}
    assert read_pins("a", files.get) == {"x": "1", "z-z": "2"}
    for name in ("c", "d"):
        with pytest.raises(MaterialsError):
            read_pins(name, files.get)
    with pytest.raises(MaterialsError, match="not installed"):
        build_bill("x", {"no-such-package": "1"}, version="1", commit="", at=AT)
