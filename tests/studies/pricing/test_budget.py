"""Budgets priced by latency: literal tables whose best budget is visible, and files that are none."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from calibrate.measuring.latency_table import LatencyTable
from calibrate.models.checkpoint import Checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.recording.builder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import filled_drafts, replay, walk
from drafting.searches.chain import confidence_chain
from drafting.state_replay import StateReplay
from studies.pricing.budget import BudgetChoice, choose_budget
from studies.pricing.price import price
from studies.statistics.intervals import PromptBootstrap
from tests.support.models import END_ID, MASK_ID, tiny_llama
from verify.decoding import DecodeConfig, decode
from verify.engines.slots import SlotEngine
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy

PROMPTS = [[3 + (5 * prompt_index + k) % 40 for k in range(6)] for prompt_index in range(6)]
CONFIG = DecodeConfig(block_length=8, generation_length=16, top_j=4)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    denoiser = HuggingFaceDenoiser(tiny_llama(3), MASK_ID)
    return Checkpoint("tiny", None, denoiser, None, (END_ID,), 8, (), "float32")


def decoded(checkpoint: Checkpoint, prompts: list[list[int]]) -> AnchorTable:
    builder = TraceBuilder()
    for prompt_index, prompt in enumerate(prompts):
        decode(
            checkpoint.denoiser, prompt, make_policy("static:1"), CONFIG, prompt_index=prompt_index, observer=builder
        )
    return AnchorTable.from_traces(builder.build(), max_depth=None)


@pytest.fixture(scope="module")
def anchors(checkpoint: Checkpoint) -> AnchorTable:
    return decoded(checkpoint, PROMPTS)


@pytest.fixture(scope="module")
def twelve(checkpoint: Checkpoint) -> AnchorTable:
    """As many prompts as a verdict needs."""
    return decoded(checkpoint, PROMPTS + [[4 + (5 * number + k) % 40 for k in range(6)] for number in range(6)])


def table(latency: list[float], refresh: float = 10.0) -> LatencyTable:
    drafts = tuple(range(len(latency)))
    values = tuple(latency)
    rows = tuple(8 * (1 + d) for d in drafts)
    return LatencyTable(
        "cpu", "float32", "tiny", "packed", 8, 16, 1, drafts, rows, values, values, values, refresh, 5
    )  # fmt: skip


ORDER = confidence_chain(4, 8, 1).nodes


def choose(
    anchors: AnchorTable, priced: LatencyTable, order: tuple[Formula, ...] = ORDER, seed: int = 0
) -> BudgetChoice:
    """The choice over the prefixes of ``order``, chosen and judged on the same prompts."""
    return choose_budget({d: order[:d] for d in priced.drafts}, anchors, anchors, priced, seed=seed)


def test_free_drafts_take_the_budget_with_the_fewest_forwards(anchors: AnchorTable) -> None:
    choice = choose(anchors, table([10.0] * 5))
    fewest = min(replay(ORDER[:d], anchors).forwards for d in range(5))
    assert choice.best.forwards == fewest
    # Of budgets with equally many forwards the smallest is taken.
    assert choice.best.budget == min(row.budget for row in choice.rows if row.forwards == fewest)
    blocks, plain = anchors.n_blocks, replay((), anchors).forwards
    assert choice.best.speedup == pytest.approx(plain / fewest)
    assert choice.rows[0].milliseconds_per_prompt == pytest.approx(10.0 * plain / 6)
    assert blocks == 12


def test_dear_drafts_are_not_taken_and_said_so(anchors: AnchorTable) -> None:
    choice = choose(anchors, table([10.0, 30.0, 50.0, 70.0, 90.0]))
    assert choice.best.budget == 0 and choice.best.speedup == 1.0 and not choice.at_edge
    # Some of these forwards carry no draft: the refreshes, and those with one masked position left.
    mean = choice.rows[1].milliseconds_per_forward
    assert 10.0 < mean < 30.0
    assert "Do not speculate" in choice.sentence and f"{mean / 10.0:.2f} times as long" in choice.sentence


def test_a_staircase_has_its_optimum_at_the_end_of_a_step(anchors: AnchorTable) -> None:
    choice = choose(anchors, table([10.0, 10.0, 10.1, 40.0, 40.0]))
    assert choice.best.budget in (1, 2)
    assert not choice.at_edge
    assert f"D = {choice.best.budget}" in choice.sentence


def test_refresh_forwards_are_paid_by_every_budget(anchors: AnchorTable) -> None:
    cheap, dear = (choose(anchors, table([10.0] * 5, refresh)) for refresh in (1.0, 1000.0))
    assert cheap.rows[3].speedup > dear.rows[3].speedup > 1.0
    assert dear.rows[3].speedup < 1.1


def test_edge_is_warned_of_and_interval_holds_the_estimate(anchors: AnchorTable) -> None:
    choice = choose(anchors, table([10.0, 10.0, 10.0]), ORDER[:1])  # D = 2 was measured, but there is no second node
    assert [row.budget for row in choice.rows] == [0, 1]
    assert choice.best.budget == 1 and choice.at_edge and "largest budget looked at" in choice.sentence
    for row in choice.rows:
        assert row.speedup_low <= row.speedup <= row.speedup_high


@pytest.mark.parametrize("order", [ORDER, (((1, 1), (2, 1)), ((7, 1),), ((1, 2),), ((1, 1), (2, 1), (3, 1), (4, 1)))])
def test_every_forward_is_priced_with_the_drafts_that_it_really_carries(
    checkpoint: Checkpoint, anchors: AnchorTable, monkeypatch: pytest.MonkeyPatch, order: tuple[Formula, ...]
) -> None:
    """Against the runtime: what each step forward of each decode held, priced one by one."""
    priced = table([10.0, 13.0, 17.0, 26.0, 41.0], refresh=100.0)
    carried: list[int] = []
    step = SlotEngine.step

    def spy(self, slots, states, bridges):
        carried.extend(len(state) - 1 for state in states)
        return step(self, slots, states, bridges)

    monkeypatch.setattr(SlotEngine, "step", spy)
    for prompt_index in range(6):
        decode(
            checkpoint.denoiser,
            PROMPTS[prompt_index],
            make_policy("static:1"),
            CONFIG,
            order,
            prompt_index=prompt_index,
        )
    assert len(set(carried)) > 2  # anchors near a block's end fill fewer
    paid = 100.0 * anchors.n_blocks + sum(priced.at(drafts) for drafts in carried)
    choice = choose_budget({4: order}, anchors, anchors, priced)
    assert choice.rows[-1].budget == 4
    assert choice.rows[-1].milliseconds_per_prompt == pytest.approx(paid / 6)
    # A number that was not measured costs what the next larger one does; a batch waits for its fullest sequence.
    sparse = dataclasses.replace(
        priced, drafts=(0, 4), query_tokens=(8, 40), latency=(10.0, 41.0), low=(10.0, 41.0), high=(10.0, 41.0)
    )
    dearer = choose_budget({4: order}, anchors, anchors, sparse).rows[-1].milliseconds_per_prompt
    batch = dataclasses.replace(priced, batch=2, query_tokens=tuple(2 * rows for rows in priced.query_tokens))
    whole = choose_budget({4: order}, anchors, anchors, batch).rows[-1].milliseconds_per_prompt
    assert choice.rows[-1].milliseconds_per_prompt < dearer <= whole
    assert whole == pytest.approx((100.0 * anchors.n_blocks + 41.0 * len(carried)) / 6)


def test_the_verdict_multiplies_up(anchors: AnchorTable) -> None:
    """Forwards saved over the time of the mean forward is the speed-up, in the rows and in what is said of them."""
    choice = choose(anchors, table([10.0, 12.0, 13.0, 14.0, 15.0], refresh=20.0))
    plain = choice.rows[0]
    for row in choice.rows:
        longer = row.milliseconds_per_forward / plain.milliseconds_per_forward
        assert plain.forwards / row.forwards / longer == pytest.approx(row.speedup)
        assert row.milliseconds_per_forward * row.forwards == pytest.approx(6 * row.milliseconds_per_prompt)
    numbers = re.search(r"be ([\d.]+) times as fast.*: ([\d.]+) times fewer.*each ([\d.]+) times", choice.sentence)
    assert choice.best.budget > 0 and numbers is not None
    speedup, fewer, longer = (float(number) for number in numbers.groups())
    assert fewer / longer == pytest.approx(speedup, abs=0.02)  # each is rounded


def test_one_split_chooses_and_another_judges(anchors: AnchorTable) -> None:
    """A graph that is worth its price on the choosing prompts only is taken, and the judge says what it is worth."""
    chooser, judge = anchors.select([0, 1, 2]), anchors.select([3, 4, 5])
    first = next(chain[0] for chain in chooser.chains() if chain and (chain[0],) != ORDER[:1])
    for graphs, priced in (
        ({1: ORDER[:1], 2: (ORDER[0], first)}, table([10.0, 10.0, 10.0])),
        ({1: ORDER[:1], 2: ORDER[:2]}, table([10.0, 11.0, 14.0])),
    ):
        choice = choose_budget(graphs, chooser, judge, priced)
        on_choice = choose_budget(graphs, chooser, chooser, priced)
        on_judge = choose_budget(graphs, judge, judge, priced)
        assert [row.choice_speedup for row in choice.rows] == [row.speedup for row in on_choice.rows]
        assert choice.best.budget == on_choice.best.budget
        assert [row.speedup for row in choice.rows] == [row.speedup for row in on_judge.rows]
        assert f"{choice.best.speedup:.2f} times as fast" in choice.sentence and "held-out" in choice.sentence
        assert choice.best.forwards == replay(graphs[choice.best.budget], judge).forwards


def informed(counts: DecodeCounts, widest: int) -> StateReplay:
    """The same counts as if a drafter that learns had needed them."""
    facts = {item.name: getattr(counts, item.name) for item in dataclasses.fields(DecodeCounts)}
    return StateReplay(**facts, query_tokens_per_prompt=counts.forwards_per_prompt, widest=widest, proposed=0, missed=0)


def test_a_batch_of_informed_drafts_is_as_wide_as_they_may_become(anchors: AnchorTable) -> None:
    """A padded forward costs its full width, also where no prompt of either split filled it; alone it does not."""
    one = table([10.0, 20.0, 40.0, 80.0])
    batch = dataclasses.replace(one, batch=2, query_tokens=tuple(2 * rows for rows in one.query_tokens))
    counts = replay(ORDER[:1], anchors)
    both = informed(counts, 1), informed(counts, 3)
    assert counts.widths_per_prompt.shape[1] == 2
    row = choose_budget({}, anchors, anchors, batch, informed={1: both}).rows[-1]
    steps = counts.forwards - int(counts.refreshes_per_prompt.sum())
    assert row.milliseconds_per_prompt == pytest.approx((10.0 * anchors.n_blocks + 80.0 * steps) / 6)
    alone = choose_budget({}, anchors, anchors, one, informed={1: both}).rows[-1]
    assert alone.milliseconds_per_prompt < row.milliseconds_per_prompt


def test_held_out_prompts_must_be_two_at_least(anchors: AnchorTable) -> None:
    with pytest.raises(ValueError, match="at least 2 held-out prompts, got 1"):
        choose_budget({}, anchors, anchors.select([0]), table([10.0]))


def test_the_interval_is_that_of_the_shared_bootstrap(anchors: AnchorTable) -> None:
    """Quartiles without a spread leave the bootstrap over prompts alone, expanded for few of them."""
    priced = table([10.0, 12.0, 13.0, 14.0, 15.0])
    row = choose(anchors, priced).rows[2]
    found = replay(ORDER[:2], anchors)
    assert found.prompts == 6
    steps = {drafts: priced.at(drafts) for drafts in priced.drafts}
    carried = [filled_drafts(ORDER[:2], anchors.masked[visited_by(anchors, prompt)]).tolist()
               for prompt in found.prompt_indices]  # fmt: skip
    spent = np.array([20.0 + sum(steps[drafts] for drafts in one) for one in carried])
    expected = PromptBootstrap(6).ratio(10.0 * replay((), anchors).forwards_per_prompt, spent)
    assert (row.speedup, row.speedup_low, row.speedup_high) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )


def visited_by(anchors: AnchorTable, prompt: int) -> np.ndarray:
    _, visited = walk(ORDER[:2], anchors)
    return visited & (anchors.prompt_index == prompt)


def test_timing_noise_widens_the_interval_and_the_verdict_follows(twelve: AnchorTable) -> None:
    calm = table([10.0, 11.0, 12.0, 13.0, 14.0])
    noisy = dataclasses.replace(
        calm, low=tuple(0.5 * value for value in calm.latency), high=tuple(1.6 * value for value in calm.latency)
    )
    sure, unsure = choose(twelve, calm), choose(twelve, noisy)
    assert sure.best.budget == unsure.best.budget > 0 and sure.best.speedup == unsure.best.speedup
    assert sure.best.speedup_low > 1 and "not certain" not in sure.sentence
    assert unsure.best.speedup_low < 1 and "The interval contains 1: the gain is not certain." in unsure.sentence
    assert unsure.best.speedup_high > sure.best.speedup_high
    assert unsure.rows[0].speedup_low == unsure.rows[0].speedup_high == 1.0  # plain decoding against itself
    few = choose(twelve.select(range(11)), calm)
    assert "too few held-out prompts (11) to conclude that it is faster" in few.sentence
    often = choose(twelve, dataclasses.replace(noisy, repeats=10_000))
    assert often.best.speedup_low == pytest.approx(sure.best.speedup_low, rel=0.02)


def test_the_timing_error_is_that_of_simulated_measurements(anchors: AnchorTable) -> None:
    """Medians of normal draws, priced one table at a time, scatter as far as the quartiles of one table say."""
    rng, means = np.random.default_rng(0), np.array([10.0, 11.0, 12.0, 13.0, 14.0])
    found = []
    for _ in range(300):
        draws = rng.normal(means, 0.1 * means, (25, 5))
        low, middle, high = np.quantile(draws, [0.25, 0.5, 0.75], axis=0)
        measured = dataclasses.replace(table(list(middle), refresh=1.0), low=tuple(low), high=tuple(high), repeats=25)
        plain, drafted = (price(replay(nodes, anchors), measured, len(nodes)) for nodes in ((), ORDER))
        found.append((plain.milliseconds.sum() / drafted.milliseconds.sum(), drafted.timing_error(plain)))
    speedups, errors = np.array(found).T
    assert np.std(np.log(speedups)) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.15)


def test_a_budget_that_may_be_faster_after_all_is_named(anchors: AnchorTable) -> None:
    dear = table([10.0, 30.0, 50.0, 70.0, 90.0])
    assert "That is not certain" not in choose(anchors, dear).sentence
    noisy = dataclasses.replace(dear, low=tuple(v / 4 for v in dear.latency), high=tuple(3 * v for v in dear.latency))
    assert (
        "Do not speculate" in choose(anchors, noisy).sentence
        and "That is not certain" in choose(anchors, noisy).sentence
    )


def test_bootstrap_is_seeded(anchors: AnchorTable) -> None:
    first, second = (choose(anchors, table([10.0] * 5), seed=4) for _ in range(2))
    assert first == second
    assert not np.isnan(first.best.speedup_low)


def test_the_verdict_of_a_batch_says_what_it_takes_for_granted(anchors: AnchorTable) -> None:
    one = table([10.0, 10.5, 11.0])
    two = dataclasses.replace(one, batch=2, query_tokens=tuple(2 * rows for rows in one.query_tokens))
    assert "as if their refreshes stayed in step" in choose(anchors, two).sentence
    assert "as if their refreshes stayed in step" not in choose(anchors, one).sentence
