"""Classification of environments: whatever is not plainly nonprod is prod."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from governance.policies.document import parse_policy
from governance.policies.environments import DEFAULT_NONPROD, PROD_TOKENS

DEFAULTS = parse_policy({})


def classify(text: str, *listed: str) -> str:
    return parse_policy({"environments": {"nonprod": list(listed)}}).classify_environment(text)


@pytest.mark.parametrize(
    "text",
    [*DEFAULT_NONPROD, "DEV", "Dev", "dev-test", "qa_staging", "ci/preview", " dev ", "dev.qa"],
)
def test_listed_tokens_alone_are_nonprod(text: str) -> None:
    assert DEFAULTS.classify_environment(text) == "nonprod"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "---", "prod", "PROD", "production", "prd", "live", "Live",
        "dev-prod", "prod-dev", "non-prod", "preview-live", "dev/prd/eu",
        "dev2", "devs", "dve", "dev-eu", "eu-dev-1", "developmen", "tset", "myDev", "stagingProd",
        "uat", "shop", "pr0d", "pord",
        "ԁev", "dеv", "d\u200bev", "dev\u200b", "\ufeffdev", "ｄｅｖ", "dév", "dev\x00", "dev\n",
        "stag\u00adıng", "Kdev", "te\u017ft",
    ],
)  # fmt: skip
def test_everything_else_is_prod(text: str) -> None:
    assert DEFAULTS.classify_environment(text) == "prod"


def test_the_list_of_the_document_replaces_the_default() -> None:
    assert classify("dev") == "prod"
    assert classify("dev", "test") == "prod"
    assert classify("uat", "uat") == "nonprod"
    assert classify("Eu-Dev-1", "dev", "eu", "1") == "nonprod"
    assert classify("eu-dev-2", "dev", "eu", "1") == "prod"


def test_a_name_of_several_words_is_matched_as_a_whole() -> None:
    assert classify("acme-eu-1", "acme-eu-1") == "nonprod"
    assert classify("ACME_EU.1", "acme-eu-1") == "nonprod"
    assert classify("acme-eu", "acme-eu-1") == "prod"
    assert classify("acme-eu-1-x", "acme-eu-1") == "prod"
    assert classify("acme", "acme-eu-1") == "prod"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dev", "nonprod"), ("dev12", "nonprod"), ("developer", "nonprod"), ("dev12-dev3", "nonprod"),
        ("review-4711", "nonprod"), ("review-feature-x", "nonprod"), ("review/abc", "nonprod"),
        ("devprod", "prod"), ("devProduction", "prod"), ("dev12-prod", "prod"), ("dev-eu", "prod"),
        ("devlive", "prod"), ("review", "prod"), ("reviewer-1", "prod"), ("review-prod", "prod"),
        ("review-pro-d", "prod"), ("review-p-rd", "prod"), ("xdev", "prod"),
    ],
)  # fmt: skip
def test_patterns(text: str, expected: str) -> None:
    assert classify(text, "dev*", "review-*") == expected


_JUNK = st.text(alphabet=st.characters(max_codepoint=0x2FFF), max_size=12)


@given(
    before=_JUNK,
    after=_JUNK,
    token=st.sampled_from(PROD_TOKENS),
    separator=st.sampled_from("-_. /:"),
)
def test_a_prod_token_anywhere_wins(before: str, after: str, token: str, separator: str) -> None:
    name = f"{before}{separator}{token}{separator}{after}"

    for spelling in (name, name.upper(), name.title()):
        assert DEFAULTS.classify_environment(spelling) == "prod"
        assert classify(spelling, "dev*", "test*", "review-*", *DEFAULT_NONPROD) == "prod"


@given(name=st.sampled_from(DEFAULT_NONPROD), place=st.integers(0, 12), letter=st.characters())
@example(name="dev", place=0, letter="\u200b")
def test_a_mutation_is_nonprod_only_if_its_words_are_listed(
    name: str, place: int, letter: str
) -> None:
    mutated = name[:place] + letter + name[place + 1 :]

    if DEFAULTS.classify_environment(mutated) == "nonprod":
        words = "".join(c if c.isalnum() else " " for c in mutated.lower()).split()
        assert mutated.isascii()
        assert words
        assert set(words) <= set(DEFAULT_NONPROD)


@given(
    st.text(max_size=30), st.lists(st.sampled_from(["dev*", "review-*", "qa", "eu"]), unique=True)
)
def test_a_shorter_list_is_never_laxer(text: str, listed: list[str]) -> None:
    if classify(text, *listed[1:]) == "nonprod":
        assert classify(text, *listed) == "nonprod"
