"""Where a capture writes: the whole file or the one before, for one capture at a time."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.unit.governance.evidence import documents
from valdrix.certification.output import (
    OutputFailed,
    OutputRefused,
    claim_output,
    ending_in_order,
)
from valdrix.certification.scenarios import to_json
from valdrix.management.commands import capture_evidence as command

PROJECT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from valdrix.certification.output import claim_output
with claim_output(Path(sys.argv[1])) as output:
    output._part.write_text("half of it")
    print("held", flush=True)
    time.sleep(600)
"""
BEFORE = "what was there before\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of evidence that is there already."""
    made = tmp_path / "evidence.json"
    made.write_text(BEFORE)
    return made


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow, which the system says in the same way as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_what_is_written_is_whole_and_leaves_nothing_beside_it(path: Path) -> None:
    with claim_output(path) as output:
        assert path.read_text() == BEFORE
        output.write("new\n")
        output_of_another = path.read_text()
    assert output_of_another == "new\n"
    assert names(path.parent) == {path.name}


def test_a_capture_that_breaks_leaves_what_was_there(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claim_output(path):
        raise KeyboardInterrupt
    assert (path.read_text(), names(path.parent)) == (BEFORE, {path.name})


def test_a_full_disk_leaves_what_was_there(path: Path) -> None:
    with claim_output(path) as output, full_disk(), pytest.raises(OutputFailed, match="written"):
        output.write("x" * 100_000)
    assert (path.read_text(), names(path.parent)) == (BEFORE, {path.name})


def test_a_second_capture_is_refused_until_the_first_is_over_or_killed(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(OutputRefused, match="another capture"), claim_output(path):
                pass
            with claim_output(path.with_name("other.json")) as other:
                other.write("another place is free\n")
        finally:
            holder.send_signal(signal.SIGKILL)
    assert path.read_text() == BEFORE
    with claim_output(path) as output:
        output.write("new\n")
    assert (path.read_text(), names(path.parent)) == ("new\n", {path.name, "other.json"})


def test_a_link_is_written_through_and_what_is_no_file_is_refused(path: Path) -> None:
    linked = path.with_name("linked.json")
    linked.symlink_to(path)
    with claim_output(linked) as output:
        output.write("new\n")
    assert (linked.is_symlink(), path.read_text()) == (True, "new\n")
    circle, long = path.with_name("circle"), path.with_name("a" * 300)
    circle.symlink_to(circle.name)
    nowhere = path / "below.json"
    for wrong in (path.parent, Path("/dev/null"), circle, long, nowhere, Path("/proc/x.json")):
        with pytest.raises(OutputRefused), claim_output(wrong):
            pass


def test_being_asked_to_end_ends_in_order() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised, ending_in_order():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("capture_evidence", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def capture(path: Path) -> tuple[int, str]:
    people = ("--executed-by", "ann", "--approved-by", "bob")
    return run("failure_injection", "--output", str(path), *people)


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "capture_failure_injection", lambda **_: pytest.fail("it ran"))
    for wrong in (path.parent, path / "below.json", path.with_name("gone") / "a.json"):
        assert capture(wrong)[0] == 2
    with claim_output(path):
        code, said = capture(path)
    assert (code, "another capture" in said) == (2, True)
    for words in (("key_rotation_drill", "--owner=ann", "--approver=bob"), ("attestation",)):
        assert run(*words, "--output", str(path.parent))[0] == 2
    with pytest.raises(CommandError) as refused:
        call_command("certify_telemetry", f"--output={path.parent}")
    assert refused.value.returncode == 2
    for name, profile in (("a.log", "ci_green"), ("source.tar.sha256", "attestation")):
        code, said = run(profile, "--output", str(path.with_name(name)))
        assert (code, "is written beside it" in said) == (2, True)
    assert path.read_text() == BEFORE


def test_a_disk_that_is_full_at_the_end_is_said_and_keeps_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        command, "capture_failure_injection", lambda **_: documents.failure_injection()
    )
    with full_disk():
        code, said = capture(path)
    assert (code, "could not be written" in said) == (1, True)
    assert path.read_text() == BEFORE
    assert capture(path)[0] == 0
    assert path.read_text() == to_json(documents.failure_injection())


def test_a_run_that_the_system_stops_is_said_in_a_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(**_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "capture_failure_injection", stop)
    code, said = capture(path)
    assert (code, "the capture was stopped: No space left on device" in said) == (1, True)
    assert (path.read_text(), names(path.parent)) == (BEFORE, {path.name})
