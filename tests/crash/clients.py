"""Clients that ask until they are answered, and the book in which they keep every answer.

The book is in the memory of the process that sends, which nobody kills: what it says was
acknowledged has to be found again, whatever was killed on the other side.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from enforcement.gate.failsafe import REASONS
from tests.crash.sending import Reply, Target, send

GATE = "gate/terraform"
ANSWERED_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 0.03
REPEATED, SETTLED = 0.1, 0.3
"""How often a client asks an old key again, and settles what it holds."""

NOT_NOW = {
    (503, "database_unavailable"),
    (503, "overloaded"),
    (504, "statement_timeout"),
    (409, "gate_lock_timeout"),
}
"""Answers that promise nothing and ask to come again."""


@dataclass(frozen=True)
class Question:
    """One attempt: the same path, key and body, however often it is sent."""

    path: str
    key: str
    body: dict[str, Any]


@dataclass
class Book:
    """What all clients saw, and what they were promised."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, tuple[Question, dict[str, Any]]] = field(default_factory=dict)
    settlements: dict[str, tuple[Question, dict[str, Any]]] = field(default_factory=dict)
    fail_safe: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    answered: list[tuple[float, float]] = field(default_factory=list)
    """When each evaluated answer was asked for, and when it came."""

    def count(self, name: str) -> None:
        """Count one more of something."""
        with self.lock:
            self.counts[name] += 1

    def blame(self, fault: str) -> None:
        """Keep what must not happen."""
        with self.lock:
            self.faults.append(fault)

    def note_answer(self, sent: float, took: float, *, evaluated: bool) -> None:
        """Note how long an answer took, and when the service was seen at work."""
        with self.lock:
            self.slowest_seconds = max(self.slowest_seconds, took)
            if evaluated:
                self.answered.append((sent, sent + took))

    def first_answer_after(self, moment: float) -> float | None:
        """Return when the first answer came to a question that was sent after a moment."""
        with self.lock:
            recent = [came for sent, came in self.answered[-400:] if sent >= moment]
        return min(recent, default=None)


class Client(threading.Thread):
    """One pipeline: asks, waits, asks again with the same key until there is an answer."""

    def __init__(
        self, number: int, book: Book, targets: tuple[Target, Target], stop: threading.Event
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._number = number
        self._book = book
        self._member, self._owner = targets
        self._stop_event = stop
        self._random = random.Random(number)
        self._asked: list[str] = []

    def run(self) -> None:
        """Work until told to stop; a question that was begun is asked to its end."""
        try:
            while not self._stop_event.is_set():
                self._work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the storm must not miss it
            self._book.blame(f"client {self._number} ended: {error!r}")

    def _work(self) -> None:
        if self._asked and self._random.random() < REPEATED:
            self._repeat(self._random.choice(self._asked))
            return
        question = self._new_question()
        answer = ask(self._book, self._member, question)
        if answer is None:
            return
        with self._book.lock:
            self._book.decisions[question.key] = (question, answer)
            self._book.counts[f"decided {answer['decision']}"] += 1
            # No answer with this key came before, so this decision was made and its answer lost.
            self._book.counts["found again after a lost answer"] += answer["replayed"]
        self._asked.append(question.key)
        holds = answer["decision"] in {"ALLOW", "ALLOW_WITH_CREDITS"}
        if holds and self._random.random() < SETTLED:
            self._settle(question, answer)

    def _new_question(self) -> Question:
        key = f"c{self._number}-{len(self._asked)}-{self._random.getrandbits(32):08x}"
        project, environment = self._random.choice(
            [("ample", "dev"), ("ample", "dev"), ("tight", "dev"), ("ample", "prod")]
        )
        body = {
            "project_id": project,
            "environment": environment,
            "resource_reference": f"module.{key}",
            "estimated_monthly_delta_usd": f"{self._random.randint(100, 4000) / 100:.2f}",
        }
        return Question(GATE, key, body)

    def _repeat(self, key: str) -> None:
        question, first = self._book.decisions[key]
        again = ask(self._book, self._member, question)
        if again is not None:
            self._book.count("asked again under fire")
            compare(self._book, question, first, again)

    def _settle(self, question: Question, answer: dict[str, Any]) -> None:
        asked = float(question.body["estimated_monthly_delta_usd"])
        settling = Question(
            f"reservations/{answer['decision_id']}/reconcile",
            f"settle-{question.key}",
            {"actual_monthly_delta_usd": f"{asked * self._random.choice([0, 0.5, 1]):.2f}"},
        )
        settled = ask(self._book, self._owner, settling)
        if settled is not None:
            with self._book.lock:
                self._book.settlements[settling.key] = (settling, settled)


def ask(book: Book, target: Target, question: Question) -> dict[str, Any] | None:
    """Send a question until it has a final answer; None is a fault that the book has."""
    deadline = time.monotonic() + ANSWERED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        sent = time.monotonic()
        try:
            reply = send(target, "POST", question.path, question.body, idempotency_key=question.key)
        except ConnectionRefusedError:
            book.count("refused connections")
        except TimeoutError:
            book.blame(f"{question.key}: no answer for {time.monotonic() - sent:.1f} s")
        except (OSError, http.client.HTTPException):
            book.count("interrupted requests")
        else:
            took = time.monotonic() - sent
            answer = _read(book, question, reply)
            book.note_answer(sent, took, evaluated=isinstance(answer, dict))
            if answer is not _AGAIN:
                return answer if isinstance(answer, dict) else None
        time.sleep(PAUSE_SECONDS)
    book.blame(f"{question.key}: never answered")
    return None


_AGAIN = object()


def _read(book: Book, question: Question, reply: Reply) -> object:
    """Return a final answer, ``_AGAIN``, or None for what should never have been answered."""
    book.count(f"answers {reply.status}")
    if reply.status == 200:
        if not set(REASONS).isdisjoint(reply.body.get("reason_codes", ())):
            _keep_fail_safe(book, reply.body)
            return _AGAIN
        return reply.body
    if (reply.status, reply.body.get("code")) in NOT_NOW:
        book.count(f"not now: {reply.body['code']}")
        return _AGAIN
    book.blame(f"{question.key}: {reply.status} {reply.body}")
    return None


def _keep_fail_safe(book: Book, answer: dict[str, Any]) -> None:
    with book.lock:
        book.counts["fail-safe answers"] += 1
        book.counts[f"fail-safe {answer['reason_codes'][0]}"] += 1
        if answer["persisted"]:
            book.counts["fail-safe answers that were recorded"] += 1
            book.fail_safe.append(answer)


def compare(book: Book, question: Question, first: dict[str, Any], again: dict[str, Any]) -> None:
    """Blame an answer that is not the first one, told again."""
    if again["replayed"] is not True:
        book.blame(f"{question.key}: decided a second time")
    if {**again, "replayed": None} != {**first, "replayed": None}:
        book.blame(f"{question.key}: acknowledged {first}, later {again}")


def ask_everything_again(book: Book, member: Target, owner: Target) -> None:
    """Ask every key again, and blame each answer that differs from the acknowledged one."""

    def repeat_decision(item: tuple[Question, dict[str, Any]]) -> None:
        question, first = item
        again = ask(book, member, question)
        if again is not None:
            compare(book, question, first, again)
            book.count("decisions asked again afterwards")

    def repeat_settlement(item: tuple[Question, dict[str, Any]]) -> None:
        question, first = item
        reply = send(owner, "POST", question.path, question.body, idempotency_key=question.key)
        if (reply.status, reply.body, reply.replayed_header) != (200, first, True):
            book.blame(f"{question.key}: acknowledged {first}, later {reply}")
        book.count("settlements asked again afterwards")

    _in_threads(repeat_decision, list(book.decisions.values()))
    _in_threads(repeat_settlement, list(book.settlements.values()))


def _in_threads(work: Callable[[Any], None], items: list[Any], *, threads: int = 3) -> None:
    def run(share: list[Any]) -> None:
        for item in share:
            work(item)

    running = [
        threading.Thread(target=run, args=(items[number::threads],)) for number in range(threads)
    ]
    for one in running:
        one.start()
    for one in running:
        one.join()
