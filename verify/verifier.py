"""The runtime verifier: a graph file, a model and a decode rule, checked against each other once, then run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verify.decoding import DecodeConfig, DecodeResult, decode, decode_batch
from verify.denoiser import Denoiser
from verify.drafts import DraftFiller
from verify.graph.file import GraphFile, Validity
from verify.policies.contract import Policy
from verify.sequence import check_monotone


class ValidityMismatchError(ValueError):
    """A graph or a drafter that was made for something else than it is to be run with."""


def run_validity(model: str, model_revision: str | None, policy: Policy, config: DecodeConfig) -> Validity:
    """What a run is, in the terms in which a graph or a drafter says for whom it is valid."""
    return Validity(
        model=model,
        model_revision=model_revision,
        policy=policy.spec,
        block_length=config.block_length,
        cache=config.cache,
        temperature=policy.temperature,
        top_j=config.top_j,
        schedule=config.schedule,
    )


class Verifier:
    """Speculative decoding with one graph; the output is that of plain decoding, token by token.

    Args:
        graph: a loaded graph file.
        denoiser: the model.
        policy: the unmasking policy the graph was calibrated for.
        config: block length and cache mode as in the graph; back-end and generation length are free.
        model: the model's name, as in the graph.
        model_revision: its revision; None is not compared.

    Raises:
        ValidityMismatchError: the graph was calibrated for another model, policy, block length, cache mode or
            temperature; such a graph would still give the right tokens, but not the forwards it promises.
        DecodeError: the policy takes committed positions back.

    >>> from calibrate import load_checkpoint
    >>> from verify import DecodeConfig, GraphFile, Validity, make_policy
    >>> checkpoint = load_checkpoint("bundled")
    >>> chain = [((1, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))]
    >>> graph = GraphFile.from_nodes(chain, Validity("bundled", None, "static:1", 32, "dual", 0.0, 8))
    >>> config = DecodeConfig(generation_length=32)
    >>> verifier = Verifier(graph, checkpoint.denoiser, make_policy("static:1"), config, model="bundled")
    >>> plain, fast = verifier.decode_plain([5, 6, 7]), verifier.decode([5, 6, 7])
    >>> fast.tokens == plain.tokens, plain.forwards, fast.forwards < plain.forwards
    (True, 32, True)
    """

    def __init__(
        self,
        graph: GraphFile,
        denoiser: Denoiser,
        policy: Policy,
        config: DecodeConfig,
        *,
        model: str,
        model_revision: str | None = None,
    ) -> None:
        check_monotone(policy)
        if wrong := graph.validity.mismatches(run_validity(model, model_revision, policy, config)):
            raise ValidityMismatchError("the graph is not valid for this run: " + "; ".join(wrong))
        self.graph, self.denoiser, self.policy, self.config = graph, denoiser, policy, config
        self._filler = DraftFiller(graph.nodes[1:])

    def decode(self, prompt: Sequence[int], prompt_index: int = 0) -> DecodeResult:
        """Decode one prompt (token ids) with the graph's drafts; arguments and errors as in ``verify.decoding``."""
        return decode(self.denoiser, prompt, self.policy, self.config, self._filler, prompt_index=prompt_index)

    def decode_batch(
        self, prompts: Sequence[tuple[int, Sequence[int]]], batch_size: int
    ) -> Iterator[tuple[int, DecodeResult]]:
        """Decode (prompt_index, token ids) pairs, ``batch_size`` at a time; see ``verify.decoding.decode_batch``."""
        return decode_batch(self.denoiser, prompts, self.policy, self.config, self._filler, batch_size=batch_size)

    def decode_plain(self, prompt: Sequence[int], prompt_index: int = 0) -> DecodeResult:
        """The same decode without drafts: one forward pass per denoising step."""
        return decode(self.denoiser, prompt, self.policy, self.config, prompt_index=prompt_index)
