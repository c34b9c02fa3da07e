"""Where decodes part and how narrowly: literal cases, then models whose numbers depend on the shape of a forward."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from figures.records.divergence import load_divergence
from studies.divergence.arms import ARMS, ArmRun, BlankDrafter, Reference, Setting, run_arm, run_reference
from studies.divergence.divergences import (
    Decision,
    DivergenceFinder,
    decision_margins,
    orders_by_confidence,
    part,
    threshold_of,
)
from studies.divergence.file import DIVERGENCE_COLUMNS, save_divergence
from studies.divergence.summary import PATH, TOKENS, Arm, DivergenceReport, compare, summarise
from studies.statistics.shares import Share
from tests.support.divergence_toys import ShapedNoise
from tests.support.models import END_ID, random_formulas
from verify.decoding import DecodeConfig, StepFact
from verify.drafters.contract import Drafter
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.policies.contract import Policy
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy

PROMPTS = [[3 + (7 * n + k * k) % 45 for k in range(5 + n % 3)] for n in range(6)]
CONFIG = DecodeConfig(block_length=8, generation_length=16, end_token_ids=(END_ID,), top_j=3)


def decision(confidence: dict[int, float], commits: dict[int, int], runner_up: float = 0.01) -> Decision:
    """Positions with their confidences, in rank order."""
    positions = sorted(confidence, key=lambda position: (-confidence[position], position))
    return Decision(
        block=1,
        step=4,
        positions=np.array(positions),
        confidence=np.array([confidence[position] for position in positions]),
        runner_up=np.full(len(positions), runner_up),
        commits=commits,
    )


@pytest.mark.parametrize(
    ("rule", "ours", "theirs", "kind", "position", "other_position", "margin"),
    [
        ("static:1", {3: 7}, {3: 8}, "another token", 3, None, 0.9 - 0.01),
        ("static:1", {3: 7}, {5: 7}, "another position", 3, 5, 0.9 - 0.6),
        ("static:2", {3: 7, 5: 7}, {3: 7, 2: 7}, "another position", 5, 2, 0.6 - 0.5),
        # Both of the reference's positions lost: the nearest pair decides.
        ("static:2", {3: 7, 5: 7}, {2: 7, 0: 7}, "another position", 5, 2, 0.6 - 0.5),
        # A token that differs counts before a position that differs.
        ("static:2", {3: 7, 5: 7}, {3: 9, 2: 7}, "another token", 3, None, 0.9 - 0.01),
        ("threshold:0.55", {3: 7, 5: 7}, {3: 7, 5: 7, 2: 7}, "commits more", 2, None, 0.05),
        ("threshold:0.55", {3: 7, 5: 7}, {3: 7}, "commits fewer", 5, None, 0.05),
        ("dynamic:0.55", {3: 7, 5: 7}, {3: 7, 5: 7, 2: 7, 0: 7}, "commits more", 2, None, 0.05),
    ],
)
def test_the_kind_of_a_parting_and_its_margin(
    rule: str,
    ours: dict[int, int],
    theirs: dict[int, int],
    kind: str,
    position: int,
    other_position: int | None,
    margin: float,
) -> None:
    confidence = {3: 0.9, 5: 0.6, 2: 0.5, 0: 0.4}
    moved = {3: 0.88, 5: 0.57, 2: 0.56, 0: 0.55}
    other = decision(moved, theirs)
    if rule.startswith("static"):  # the other decode ranks the positions otherwise, and takes its best ones too
        other = decision({p: 0.8 if p in theirs else 0.3 for p in confidence}, theirs)
    found = part(6, decision(confidence, ours), other, make_policy(rule))
    assert (found.prompt_index, found.block, found.step) == (6, 1, 4)
    assert (found.kind, found.position, found.other_position) == (kind, position, other_position)
    assert found.margin == pytest.approx(margin)


def test_the_noise_is_the_largest_change_of_a_confidence() -> None:
    ours, theirs = decision({3: 0.9, 5: 0.6, 2: 0.55}, {3: 7}), decision({2: 0.52, 5: 0.64, 3: 0.63}, {5: 7})
    assert part(0, ours, theirs, make_policy("static:1")).noise == pytest.approx(0.9 - 0.63)


@pytest.mark.parametrize(
    ("policy", "ours", "theirs"),
    [
        (make_policy("static:1", 0.5), {3: 7}, {3: 8}),  # sampled tokens: noise decides too
        (make_policy("static:1", 0.5), {3: 7}, {5: 8}),
        (make_policy("dream:entropy:4"), {3: 7}, {5: 7}),  # another order than that of confidence
        (make_policy("static:1"), {5: 7}, {2: 7}),  # a rule that passed over its most confident position
        (make_policy("quota:4"), {3: 7}, {3: 7, 5: 7}),  # no threshold
    ],
)
def test_no_margin_where_the_rule_does_not_decide_by_these_numbers(
    policy: Policy, ours: dict[int, int], theirs: dict[int, int]
) -> None:
    confidence = {3: 0.9, 5: 0.6, 2: 0.5}
    assert part(0, decision(confidence, ours), decision(confidence, theirs), policy).margin is None


def test_one_vocabulary_rank_gives_no_margin_between_tokens() -> None:
    ours, theirs = decision({3: 0.9}, {3: 7}, math.nan), decision({3: 0.9}, {3: 8}, math.nan)
    assert part(0, ours, theirs, make_policy("static:1")).margin is None


def test_decisions_of_two_moments_are_not_compared() -> None:
    later = Decision(1, 5, np.array([0]), np.array([0.5]), np.array([0.1]), {0: 3})
    with pytest.raises(ValueError, match="step 5 of block 1 cannot be compared with step 4 of block 1"):
        part(0, decision({3: 0.9}, {3: 7}), later, make_policy("static:1"))


@pytest.mark.parametrize(
    ("rule", "confidence", "commits", "margin"),
    [
        ("static:1", {3: 0.9, 5: 0.6}, {3: 7}, 0.3),  # to the next position
        ("static:2", {3: 0.9, 5: 0.6}, {3: 7, 5: 7}, 0.59),  # nothing is left, so only the tokens could change
        ("threshold:0.8", {3: 0.9, 5: 0.6}, {3: 7}, 0.2),  # the next one would have to reach 0.8
        ("threshold:0.8", {3: 0.9, 5: 0.85}, {3: 7, 5: 7}, 0.05),  # the last one would have to fall below
        ("threshold:0.8", {3: 0.5, 5: 0.4}, {3: 7}, 0.1),  # below the threshold the best is a matter of order
    ],
)
def test_how_narrow_a_decision_was(
    rule: str, confidence: dict[int, float], commits: dict[int, int], margin: float
) -> None:
    assert decision_margins([decision(confidence, commits)], make_policy(rule)) == pytest.approx([margin])


def test_a_narrow_token_makes_a_decision_narrow() -> None:
    narrow = decision({3: 0.48, 5: 0.2}, {3: 7}, runner_up=0.46)
    assert decision_margins([narrow], make_policy("static:1")) == pytest.approx([0.02])
    assert len(decision_margins([narrow], make_policy("static:1", 1.0))) == 0


def test_only_the_first_parting_is_kept() -> None:
    def fact(step: int, position: int, token: int) -> StepFact:
        probability = np.array([[0.6, 0.2], [0.5, 0.3]])
        return StepFact(
            2, 0, step, np.array([1, 4]), np.array([[7, 8], [7, 8]]), probability, np.array([position]),
            np.array([token]), "",
        )  # fmt: skip

    reference = {2: [Decision.of(fact(step, 1, 7)) for step in (1, 2, 3)]}
    finder = DivergenceFinder(reference, make_policy("static:1"))
    for step, position, token in ((1, 1, 7), (2, 1, 8), (3, 4, 7)):
        finder.on_step(fact(step, position, token))
    found = finder.divergences[2]
    assert (found.step, found.kind, found.margin) == (2, "another token", pytest.approx(0.4))


def arm(name: str, differ: list[int], prompts: int = 20) -> Arm:
    flags = [n in differ for n in range(prompts)]
    return Arm(name, name, 8 if name == "batch" else 1, flags, flags, 1.0, None, None, 10, 320, 0.5, [])


@pytest.mark.parametrize(
    ("first", "second", "p_value", "verdict"),
    [
        (range(6), [], 2 * 0.5**6, "more"),
        ([], range(6), 2 * 0.5**6, "fewer"),
        (range(5), [], 2 * 0.5**5, "cannot be told apart"),
        (range(10), range(10), 1.0, "cannot be told apart"),  # ten prompts, all of them in both
        (range(10), [*range(4), 11], 2 * (1 + 7) * 0.5**7, "cannot be told apart"),
    ],
)
def test_only_prompts_that_one_of_two_changes_can_tell_them_apart(
    first: list[int], second: list[int], p_value: float, verdict: str
) -> None:
    found = compare(arm("drafts", list(first)), arm("batch", list(second)), TOKENS)
    assert found.p_value == pytest.approx(p_value)
    assert found.verdict == verdict
    assert (found.only_first, found.only_second) == (len({*first} - {*second}), len({*second} - {*first}))


def test_none_of_48_still_allows_some() -> None:
    share = Share.of([False] * 48)
    assert (share.low, share.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 48)))
    assert str(Share.of([True, False])) == "1 of 2"


@pytest.mark.parametrize(
    ("drafts", "batch", "expected"),
    [
        ([], [], "In bfloat16 speculation changes the tokens of 0 of 20 prompts, batching alone (batch 8 against 1) "
         "of 0: neither was seen, and up to 16.8 % of prompts may still change (95 % interval)."),
        ([1], [2, 3], "the tokens of 1 of 20 prompts, batching alone (batch 8 against 1) of 2; the two cannot be told "
         "apart (exact McNemar test, p = 1.000)."),
        (list(range(8)), [], "the tokens of 8 of 20 prompts, batching alone (batch 8 against 1) of 0: more than "
         "batching (exact McNemar test, p = 0.008)."),
    ],
)  # fmt: skip
def test_the_sentence(drafts: list[int], batch: list[int], expected: str) -> None:
    arms = (arm("repeat", []), arm("batch", batch), arm("blank", []), arm("drafts", drafts))
    comparisons = tuple(compare(arms[3], arms[1], measure) for measure in (TOKENS, PATH))
    report = DivergenceReport("bfloat16", 20, 100, arms, comparisons, np.zeros(0))
    assert expected in report.sentence


def run_all(
    denoiser: ShapedNoise, spec: str = "static:1", cache: str = "dual", drafter: Drafter | None = None
) -> tuple[Reference, list[ArmRun]]:
    policy = make_policy(spec)
    config = DecodeConfig(**{**vars(CONFIG), "cache": cache})
    drafter = drafter or GraphDrafter(random_formulas(1, 6, policy.step_size))
    setting = Setting(denoiser, PROMPTS, policy, config, drafter)
    reference = run_reference(setting)
    return reference, [run_arm(name, setting, reference, batch=3) for name in ARMS]


@pytest.mark.parametrize(
    ("spec", "cache", "drafter"),
    [
        ("static:1", "dual", None),
        ("threshold:0.3", "dual", None),
        ("static:1", "block_causal", InformedDrafter(6)),
        ("threshold:0.3", "dual", InformedDrafter(6)),
    ],
)
def test_in_float32_nothing_parts(spec: str, cache: str, drafter: Drafter | None, tmp_path: Path) -> None:
    reference, runs = run_all(ShapedNoise(), spec, cache, drafter)
    for run in runs:
        assert run.divergences == {}
        assert [result.tokens for result in run.results] == [result.tokens for result in reference.results]
    repeat, batch, blank, drafts = runs
    forwards = [result.forwards for result in reference.results]
    for same in (repeat, batch, blank):  # blank drafts are rows that nothing ever accepts
        assert [result.forwards for result in same.results] == forwards
    assert sum(map(sum, (result.accepted for result in blank.results))) == 0
    assert sum(result.query_tokens for result in blank.results) > 2 * sum(
        result.query_tokens for result in repeat.results
    )
    assert sum(result.forwards for result in drafts.results) < sum(forwards)
    saved, table = save_divergence(summarise("float32", make_policy(spec), reference, runs), {}, tmp_path / "none.json")
    assert table.read_text().splitlines() == [",".join(DIVERGENCE_COLUMNS)]
    assert {load_divergence(saved).verdict(measure) for measure in (TOKENS, PATH)} == {"cannot be told apart"}


@pytest.mark.parametrize(
    ("noise", "divergence", "still"),
    [
        ({"of_batch": 0.3}, {"batch"}, {"repeat", "blank", "drafts"}),
        ({"of_rows": 0.3}, {"blank", "drafts"}, {"repeat", "batch"}),
    ],
)
@pytest.mark.parametrize("spec", ["static:1", "threshold:0.3"])
def test_noise_parts_the_ways_that_have_its_shape(
    noise: dict[str, float], divergence: set[str], still: set[str], spec: str, tmp_path: Path
) -> None:
    reference, runs = run_all(ShapedNoise(**noise), spec)
    report = summarise("bfloat16", make_policy(spec), reference, runs)
    for name in divergence:
        way = report.arm(name)
        assert sum(way.path_parts) >= 2
        assert len(way.divergences) == sum(way.path_parts)
        assert all(way.path_parts[prompt_index] for prompt_index, differ in enumerate(way.tokens_differ) if differ)
        assert way.token_agreement == pytest.approx(1.0) or any(way.tokens_differ)
        assert way.token_agreement_low is not None and way.token_agreement_low <= way.token_agreement
        for found in way.divergences:
            assert found.margin is not None and found.margin >= 0
            # Both sides of a decision move by at most the noise, so twice that is the most it can bridge; a lead of a
            # token over its runner-up moves with the runner-up too, which the noise does not hold.
            if found.kind != "another token":
                assert found.margin <= 2 * found.noise + 1e-12
    for name in still:
        assert not any(report.arm(name).path_parts) and report.arm(name).token_agreement == 1.0
    assert 0 < len(report.decision_margins) == sum(map(len, reference.decisions.values()))
    saved, table = save_divergence(report, {"model": "toy"}, tmp_path / "found.json")
    content = json.loads(saved.read_text())
    assert content["sentence"] == report.sentence and len(content["decision_margin_quantiles"]) == 201
    drawn = load_divergence(saved)
    assert {way.arm: len(drawn.margins(way.arm)) for way in drawn.arms} == {
        way.name: len(way.divergences) for way in report.arms
    }
    rows = list(csv.DictReader(table.open()))
    assert tuple(rows[0]) == DIVERGENCE_COLUMNS and {row["arm"] for row in rows} == divergence
    assert len(rows) == sum(len(way.divergences) for way in report.arms)


def test_blank_drafts_have_the_rows_of_drafts_and_bridges() -> None:
    """Plain decoding advances one step a forward; with blank drafts it pays for all that is proposed and no more."""
    drafter, staying = InformedDrafter(6), InformedDrafter(6, InformedSettings(bridges=False))
    config = DecodeConfig(**{**vars(CONFIG), "cache": "block_causal"})
    found = []
    for one in (drafter, staying, GraphDrafter()):
        setting = Setting(ShapedNoise(), PROMPTS[:2], make_policy("static:1"), config, one)
        run = run_arm("blank", setting, reference := run_reference(setting))
        assert [result.tokens for result in run.results] == [result.tokens for result in reference.results]
        assert [result.forwards for result in run.results] == [result.forwards for result in reference.results]
        found.append(sum(result.query_tokens for result in run.results))
    bridged, stayed, plain = found
    assert 3 * plain < stayed < bridged
    made = BlankDrafter(drafter)
    assert (made.max_drafts, made.max_bridges, made.max_vocabulary_rank) == (6, 6, 1)
    assert made.describe() == {"drafter": "blank", "instead_of": drafter.describe()}


def test_wrong_ways_are_named() -> None:
    setting = Setting(ShapedNoise(), PROMPTS[:1], make_policy("static:1"), CONFIG, GraphDrafter())
    reference = Reference([], {})
    with pytest.raises(ValueError, match="unknown way to decode 'other', expected one of repeat, batch, blank, drafts"):
        run_arm("other", setting, reference)
    with pytest.raises(ValueError, match="a batch of 2 over 1 prompts is no other shape than batch 1"):
        run_arm("batch", setting, reference, batch=2)


def test_only_rules_that_decide_by_confidence_alone_have_margins() -> None:
    """A field called tau says nothing: credit raises confidences, klass asks for stability, a filter learns."""
    rules = [rule for rule in BUILT_IN.values() if not rule.stands_for]
    policies = [make_policy(spec) for rule in rules for spec in rule.examples]
    by_confidence = {policy.spec.partition(":")[0] for policy in policies if orders_by_confidence(policy)}
    assert by_confidence == {"static", "quota", "threshold", "dynamic", "dream"}
    assert {policy.spec: threshold_of(policy) for policy in policies if threshold_of(policy) is not None} == {
        "threshold:0.9": 0.9, "dynamic:0.9": 0.9,
    }  # fmt: skip
    assert not orders_by_confidence(make_policy("dream:confidence:8@top_p=0.5"))
