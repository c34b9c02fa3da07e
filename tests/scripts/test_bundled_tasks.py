"""Generators of the bundled domains: deterministic, split by prompt, right by their checkers, short enough."""

from __future__ import annotations

import itertools
import random

import pytest

from calibrate.bundled import GENERATION_LENGTH, SPLITS
from calibrate.prompts.bundled import CHECKERS
from calibrate.prompts.prompt import Prompt
from scripts.bundled_model import tasks
from scripts.bundled_model.tokenizer import FIRST_VOCABULARY, VOCABULARY, build_tokenizer, encode_symbols

DOMAINS = tuple(tasks.MAKERS)


def some(domain: str, number: int, seed: int = 0, split: str = "train") -> list[tasks.Example]:
    return list(itertools.islice(tasks.stream(domain, split, seed), number))


def mutations(answer: str, rng: random.Random) -> list[str]:
    """A symbol dropped, doubled, exchanged for another of the answer, and the end cut off."""
    symbols = answer.split(" ")
    at = rng.randrange(len(symbols))
    other = rng.choice([symbol for symbol in symbols if symbol != symbols[at]])
    changed = [
        [*symbols[:at], *symbols[at + 1 :]],
        [*symbols[:at], symbols[at], *symbols[at:]],
        symbols[: rng.randrange(len(symbols))],
    ]
    found = [" ".join(each) for each in changed]
    return [*found, " ".join([*symbols[:at], other, *symbols[at + 1 :]])]


@pytest.mark.parametrize("domain", DOMAINS)
def test_thousand_answers_pass_and_their_mutations_do_not(domain):
    rng = random.Random(0)
    escaped = tried = 0
    for example in some(domain, 1000):
        prompt = Prompt("", example.prompt, domain=domain)
        assert CHECKERS[domain](prompt, example.answer)
        *structural, exchanged = mutations(example.answer, rng)
        assert not any(CHECKERS[domain](prompt, wrong) for wrong in structural), example
        escaped += CHECKERS[domain](prompt, exchanged)
        tried += 1
    # Where answers are free, a symbol for another may be one more valid answer (another place; of a line that lost one,
    # another one lost); where there is one answer, it never is.
    assert escaped <= {"stories": 0.05, "lines": 0.01}.get(domain, 0) * tried, f"{escaped} of {tried}"


@pytest.mark.parametrize("domain", DOMAINS)
def test_lengths(domain):
    for example in some(domain, 1000):
        assert 11 <= len(encode_symbols(example.prompt)) <= 40
        assert len(encode_symbols(example.answer)) + 1 <= GENERATION_LENGTH


@pytest.mark.parametrize("domain", DOMAINS)
def test_streams_are_deterministic(domain):
    first, again, other = (some(domain, 20, seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_are_disjoint(domain):
    held = {split: {row["prompt"] for row in tasks.heldout(split, 30, domains=(domain,))} for split in SPLITS}
    assert [len(prompts) for prompts in held.values()] == [30, 30, 30]
    everything = [*(prompt for prompts in held.values() for prompt in prompts), *(e.prompt for e in some(domain, 300))]
    for split, prompts in held.items():
        assert {tasks.split_of(prompt) for prompt in prompts} == {split}
        assert sum(prompt in prompts for prompt in everything) == 30
    assert {tasks.split_of(example.prompt) for example in some(domain, 300)} == {"train"}


@pytest.mark.parametrize("domain", ["stories", "lines"])
def test_answers_are_drawn_anew_for_every_prompt(domain):
    """A change of the answers' generator changes the answers alone, so prompts stay in their splits."""
    stream = tasks.stream(domain, "train", 0)
    stream.answers = random.Random(1)
    usual = some(domain, 20)
    assert [example.prompt for example in itertools.islice(stream, 20)] == [example.prompt for example in usual]


def test_a_prompt_file_has_answers_only_where_no_other_is_right():
    rows = tasks.prompt_rows("validation", ("lists", "code", "stories", "lines"))
    assert {row["domain"] for row in rows if "answer" in row} == {"lists", "code"}
    assert {row["domain"] for row in rows if "answer" not in row} == {"stories", "lines"}
    assert [row["prompt"] for row in rows if row["domain"] == "lines"] == [
        row["prompt"] for row in tasks.heldout("validation", domains=("lines",))
    ]


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown domain 'rhymes', expected one of lists, code"):
        tasks.stream("rhymes", "train", 0)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        tasks.heldout("dev")


def test_vocabulary_goes_on_from_that_of_the_committed_weights():
    assert VOCABULARY[: len(FIRST_VOCABULARY)] == FIRST_VOCABULARY
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    used = {symbol for domain in DOMAINS for e in some(domain, 300) for symbol in f"{e.prompt} {e.answer}".split(" ")}
    assert used == set(VOCABULARY[2:]) - {"9"}


def test_tokenizer_round_trip():
    tokenizer = build_tokenizer()
    for domain in DOMAINS:
        for example in some(domain, 10):
            for text in (example.prompt, example.answer):
                assert tokenizer(text)["input_ids"] == encode_symbols(text)
                assert tokenizer.decode(encode_symbols(text)) == text
