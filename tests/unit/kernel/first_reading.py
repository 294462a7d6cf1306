"""Many threads are the first to read structs, all at once; prints how many of them did."""

from __future__ import annotations

import sys
import threading

from enforcement.adapters.admission_review import read_review
from governance.policies.document import parse_policy
from tests.benchmarks.policies import SECTIONS
from tests.builders import a_policy_document
from tests.kubernetes import a_review, an_object

THREADS = 16
DOCUMENT = a_policy_document(**SECTIONS)
REVIEW = a_review(an_object())


def main() -> int:
    """Return how many threads came to their end."""
    sys.setswitchinterval(1e-6)
    start, read = threading.Barrier(THREADS), []

    def run() -> None:
        start.wait()
        parse_policy(DOCUMENT)
        read_review(REVIEW)
        read.append(True)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(read)


if __name__ == "__main__":
    sys.stdout.write(str(main()))
