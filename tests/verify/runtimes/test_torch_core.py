"""The torch core waits for nothing: its shapes follow from shapes alone, and no number is read on the host."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.support.models import random_formulas
from verify.graph.buffers import pad_formulas
from verify.runtimes import numpy_core, numpy_informed, torch_core

BATCH, LENGTH, VOCABULARY, TOP_J, MASK = 3, 8, 20, 4, 7
FORMULAS, LENGTHS = pad_formulas([(), *random_formulas(1, 11, None, ranks=6, top_j=TOP_J)])
RULES = [(2,), (1, 0.3), (1, 0.3, True), (0, 0.6)]


def anchor(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [B, L, V], rows [B, N, L, V] that resemble them, and states [B, L]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(BATCH, LENGTH, VOCABULARY)).astype(np.float32)
    rows = logits[:, None] + rng.normal(scale=0.2, size=(BATCH, len(LENGTHS), LENGTH, VOCABULARY)).astype(np.float32)
    state = rng.integers(8, VOCABULARY, size=(BATCH, LENGTH))
    state[rng.random((BATCH, LENGTH)) < 0.8] = MASK
    return logits, rows, state


def anchored(core, logits, rows, state, formulas, lengths, rule):
    """All of a core, once."""
    ranks = core.rank(logits, state, MASK, TOP_J)
    drafts, usable = core.fill(formulas, lengths, ranks, state)
    return ranks, drafts, usable, core.accept(rows, drafts, usable, MASK, core.Rule(*rule))


@pytest.mark.parametrize("rule", RULES)
def test_no_shape_and_no_choice_depends_on_numbers(rule) -> None:
    """Fake tensors have no numbers: whatever reads one, or makes a shape of one, raises."""
    logits, rows, state = anchor(0)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        given = [mode.from_tensor(torch.from_numpy(array)) for array in (logits, rows, state, FORMULAS, LENGTHS)]
        ranks, drafts, usable, found = anchored(torch_core, *given, rule)
        with pytest.raises(DataDependentOutputException):
            found.accepted.sum().item()
    assert ranks.order.shape == (BATCH, LENGTH) and ranks.tokens.shape == (BATCH, LENGTH, TOP_J)
    assert drafts.shape == (BATCH, len(LENGTHS), LENGTH) and usable.shape == found.path.shape == drafts.shape[:2]
    assert found.state.shape == (BATCH, LENGTH) and found.accepted.shape == found.last.shape == (BATCH,)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_it_decides_a_batch_as_numpy_does(rule, seed: int) -> None:
    logits, rows, state = anchor(seed)
    expected = anchored(numpy_core, logits, rows, state, FORMULAS, LENGTHS, rule)
    given = map(torch.from_numpy, (logits, rows, state, FORMULAS, LENGTHS))
    ranks, drafts, usable, found = anchored(torch_core, *given, rule)
    for ours, other in ((ranks, expected[0]), (found, expected[3])):
        for name in other._fields:
            if name == "confidence":
                np.testing.assert_allclose(ours.confidence, other.confidence, rtol=1e-13)
            else:
                np.testing.assert_array_equal(getattr(ours, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(drafts, expected[1])
    np.testing.assert_array_equal(usable, expected[2])
    assert ranks.sound.all() and found.sound.all()


@pytest.mark.parametrize("core", [numpy_core, torch_core], ids=["numpy", "torch"])
def test_neither_the_root_nor_an_unusable_row_is_a_successor(core) -> None:
    """Row 2 equals what follows row 0, but is not usable; row 3 is; what follows row 3 is the state itself again."""
    drafts = np.array([[[7, 7], [5, 7], [7, 6], [7, 6]]])
    following = np.array([[[7, 6], [5, 6], [7, 6], [7, 7]]])
    usable = np.array([[True, True, False, True]])
    given = (drafts, usable, following)
    found = core.match(*(map(torch.from_numpy, given) if core is torch_core else given))
    assert found.tolist() == [[3, -1, -1, -1]]


def test_fewer_gathers_are_enough_where_formulas_are_small() -> None:
    successor = torch.tensor([[2, -1, 3, 1], [1, 2, -1, -1]])
    whole = torch_core.walk(successor)
    assert whole[0].tolist() == [[0, 2, 3, 1], [0, 1, 2, -1]] and whole[1].tolist() == [3, 2]
    assert torch_core.walk(successor, 2)[0].tolist() == [[0, 2, 3, -1], [0, 1, 2, -1]]
    logits, rows, state = (torch.from_numpy(array) for array in anchor(1))
    ranks = torch_core.rank(logits, state, MASK, TOP_J)
    drafts, usable = torch_core.fill(torch.from_numpy(FORMULAS), torch.from_numpy(LENGTHS), ranks, state)
    rule = torch_core.Rule(1)
    for one, other in zip(
        torch_core.accept(rows, drafts, usable, MASK, rule),
        torch_core.accept(rows, drafts, usable, MASK, rule, most=FORMULAS.shape[1]),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_broken_logits_are_told(wrong: float) -> None:
    """numpy raises; torch must not look, so it says for each sequence whether its logits are sound."""
    logits, rows, state = anchor(2)
    state[:, 3] = MASK
    state[:, 5] = 9
    logits[:, 5, 2] = wrong  # of a position that is not masked: never looked at
    numpy_core.rank(logits, state, MASK, TOP_J)
    logits[1, 3, 2] = rows[1, 0, 3, 2] = wrong
    with pytest.raises(FloatingPointError, match=r"NaN, \+inf or only -inf at a masked position"):
        numpy_core.rank(logits, state, MASK, TOP_J)
    ranks = torch_core.rank(torch.from_numpy(logits), torch.from_numpy(state), MASK, TOP_J)
    assert ranks.sound.tolist() == [True, False, True]
    ranks = numpy_core.rank(anchor(2)[0], state, MASK, TOP_J)
    drafts, usable = numpy_core.fill(FORMULAS, LENGTHS, ranks, state)
    given = map(torch.from_numpy, (rows, drafts, usable))
    assert torch_core.accept(*given, MASK, torch_core.Rule(1)).sound.tolist() == [True, False, True]
    with pytest.raises(FloatingPointError):
        numpy_core.accept(rows, drafts, usable, MASK, numpy_core.Rule(1))


def test_half_precision_is_widened_exactly() -> None:
    logits, _, state = anchor(3)
    half = torch.from_numpy(logits).to(torch.bfloat16)
    ours = torch_core.rank(half, torch.from_numpy(state), MASK, TOP_J)
    expected = numpy_core.rank(half.float().numpy(), state, MASK, TOP_J)
    np.testing.assert_array_equal(ours.order, expected.order)
    np.testing.assert_array_equal(ours.tokens, expected.tokens)


@pytest.mark.parametrize("core", [numpy_core, torch_core], ids=["numpy", "torch"])
def test_shapes_that_do_not_fit_are_refused(core) -> None:
    logits, _, state = anchor(0)
    if core is torch_core:
        logits, state = torch.from_numpy(logits), torch.from_numpy(state)
    with pytest.raises(ValueError, match=r"logits of shape \(3, 8, 20\) and a state of \(3, 7\), expected \[B, L, V\]"):
        core.rank(logits, state[:, :7], MASK, TOP_J)


@pytest.mark.parametrize("core", [numpy_core, torch_core, numpy_informed], ids=lambda core: core.__name__)
def test_a_core_can_be_copied(core) -> None:
    """It imports its array library and nothing of this project."""
    text = Path(core.__file__).read_text(encoding="utf-8")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported == {"__future__", "typing", core.__name__.rpartition(".")[2].partition("_")[0]}
    assert len(text.splitlines()) <= 350
