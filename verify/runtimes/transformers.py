"""transformers: decoding with calibrated drafts behind ``model.generate``, read against transformers 5.23.

    model.generate(ids, max_new_tokens=96, custom_generate=draftgraph_generate, drafts="graph.json", mask_token_id=1)

``generate`` prepares its inputs as ever and then calls :func:`draftgraph_generate` in the place of its own loop. It
hands a custom loop only what it does not know itself, so a streamer never arrives here. :func:`recipe_generate` is the
same for a repository that brings the loop as a file (``verify.runtimes.transformers_recipe``).

transformers is imported where it is used, so that importing this module costs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch

from verify.decoding import DecodeConfig, Drafts, decode_batch
from verify.denoiser import Denoiser
from verify.drafters.contract import Drafter
from verify.drafters.file import DrafterFile, drafter_of
from verify.graph.file import GraphFile
from verify.graph.validity import Validity
from verify.policies.contract import Policy
from verify.policies.specification import make_policy
from verify.runtimes.transformers_model import TransformersDenoiser
from verify.runtimes.transformers_probe import probe_mask
from verify.verifier import ValidityMismatchError, run_validity

#: How long a commit of the hub is; a local folder's revision is a shorter digest, which a loaded model does not know.
_COMMIT = 40
#: Criteria that ``generate`` makes of lengths and end tokens; these are kept here by the length and the end tokens.
_KEPT_CRITERIA = ("MaxLengthCriteria", "EosTokenCriteria")

_PROBED: WeakKeyDictionary[Any, set[tuple[int, int]]] = WeakKeyDictionary()


class GenerateError(ValueError):
    """An argument of ``generate`` that a block-wise decode with drafts cannot follow."""


@dataclass(frozen=True)
class _Asked:
    """What is decoded with, settled from the arguments and from what the drafts were made for."""

    drafter: Drafter
    policy: Policy
    config: DecodeConfig
    validity: Validity | None


@torch.no_grad()
def draftgraph_generate(
    model: Any,
    input_ids: torch.Tensor,
    *,
    generation_config: Any,
    logits_processor: Sequence[Any] | None = None,
    stopping_criteria: Sequence[Any] | None = None,
    drafts: str | Path | GraphFile | DrafterFile | Drafts | None = None,
    policy: str | None = None,
    cache: str | None = None,
    block_length: int | None = None,
    schedule: str | None = None,
    backend: str = "packed",
    seed: int = 0,
    mask_token_id: int | None = None,
    logits_shift: int = 0,
    denoiser: Denoiser | None = None,
    **model_kwargs: Any,
) -> Any:
    """The decode loop for ``model.generate(..., custom_generate=draftgraph_generate, drafts="graph.json", ...)``.

    Tokens are those of plain decoding under the same policy, blocks and cache; in float32 token by token. A row of the
    batch ends with its first end token, as in ``generate``, though its block is decoded to its end.

    Args:
        model: a ``*ForCausalLM`` that follows a 4-D attention mask; asked once per model, in one forward of 18 rows.
        input_ids: int64 [B, P]; shorter prompts are padded on the left, as ``attention_mask`` says.
        generation_config: of it are read: the lengths, ``eos_token_id``, ``pad_token_id`` and
            ``return_dict_in_generate``.
        logits_processor, stopping_criteria: what ``generate`` makes of the configuration; anything that would change
            tokens is refused.
        drafts: a graph file or a drafter file, loaded or by its path; or a drafter, or formulas. None decodes plainly.
        policy: the unmasking policy, for example ``threshold:0.9``; that of the file when left out.
        cache, block_length, schedule: as in :class:`verify.decoding.DecodeConfig`; those of the file when left out,
            else ``dual``, 32 and none.
        backend: ``packed`` or ``expanded``.
        seed: of policies that draw tokens; the row of the batch is the number of the prompt.
        mask_token_id: of the model; its configuration's ``mask_token_id`` when left out.
        logits_shift: 1 for a model whose row r predicts the token after it (Dream), else 0. Nothing in a model says so.
        denoiser: the model as :func:`calibrate.load_checkpoint` hands it out (``checkpoint.denoiser``), with mask token
            and shift, and with static buffers for the whole batch; without it there is a call per row of the batch.
        model_kwargs: ``attention_mask``, and what else ``generate`` prepares for a model.

    Returns:
        int64 [B, P + N], prompts and what was generated, ``N`` tokens for the longest; behind its end a row is padded.
        With ``return_dict_in_generate`` an output with ``sequences``, ``forwards`` (int64 [B], forward passes that each
        row took part in) and ``steps`` (int64 [B], its denoising steps: the forwards of plain decoding).

    Raises:
        GenerateError: beams, sampling by ``do_sample``, a logits processor, another stopping criterion, a cache or
            positions of the caller's, no mask token known, no policy, or a policy, cache, block length or schedule
            beside a file that was made for another one.
        verify.verifier.ValidityMismatchError: the file was made for another commit of the model on the hub.
        The errors of reading a file, and of :func:`verify.decoding.decode_batch`.
    """
    _check_arguments(generation_config, logits_processor, stopping_criteria)
    prompts = _prompts(input_ids, model_kwargs)
    length = _new_tokens(generation_config, input_ids.shape[1])
    ends = _token_ids(generation_config.eos_token_id)
    asked = _settle(
        drafts, policy, {"cache": cache, "block_length": block_length, "schedule": schedule},
        generation_length=length, backend=backend, seed=seed, end_token_ids=ends,
    )  # fmt: skip
    _check_commit(model, asked.validity)
    denoiser = denoiser_for(model, denoiser, mask_token_id, logits_shift)
    results = dict(
        decode_batch(
            denoiser, list(enumerate(prompts)), asked.policy, asked.config, asked.drafter, batch_size=len(prompts)
        )
    )
    rows = [results[row].tokens[: min(results[row].end + 1, length)] for row in range(len(prompts))]
    width = max(map(len, rows))
    stated = _token_ids(generation_config.pad_token_id)
    padding = (stated or ends or (0,))[0]  # without an end token all rows have one length, and nothing is padded
    tail = torch.tensor([row + [padding] * (width - len(row)) for row in rows], dtype=input_ids.dtype)
    sequences = torch.cat([input_ids, tail.to(input_ids.device)], dim=1)
    if not getattr(generation_config, "return_dict_in_generate", False):
        return sequences
    counts = {name: torch.tensor([getattr(results[row], name) for row in range(len(rows))]) for name in _COUNTS}
    return _output_class()(sequences=sequences, **counts)


_COUNTS = ("forwards", "steps")


def recipe_generate(
    model: Any,
    inputs: torch.Tensor | None,
    drafts: GraphFile | DrafterFile,
    facts: Mapping[str, Any],
    /,
    **arguments: Any,
) -> Any:
    """``generate`` of a repository that brings this loop: the model's own, with the drafts and facts of the file.

    Args:
        model: as loaded; its ``generate`` may already be this one, so that of its class is called.
        inputs: prompts, int64 [B, P], or None where they are ``input_ids`` in ``arguments``.
        drafts: what the file holds.
        facts: other arguments of :func:`draftgraph_generate`, which ``arguments`` may replace.
        arguments: what the caller gave ``generate``.

    Raises:
        GenerateError: a streamer; and the errors of :func:`draftgraph_generate`.
    """
    if arguments.pop("streamer", None) is not None:
        raise GenerateError("a streamer cannot follow blocks that are filled in any order; leave streamer out")
    stated = {"drafts": drafts, **facts, **arguments}
    return type(model).generate(model, inputs, custom_generate=draftgraph_generate, **stated)


@cache
def _output_class() -> Any:
    """The output with counts; made on first use, as it derives from a class of transformers."""
    from transformers.utils import ModelOutput

    @dataclass
    class DraftgraphOutput(ModelOutput):
        """What was generated, int64 [B, P + N], and what it cost, int64 [B]."""

        sequences: torch.Tensor | None = None
        forwards: torch.Tensor | None = None
        steps: torch.Tensor | None = None

    return DraftgraphOutput


def _check_arguments(config: Any, processors: Iterable[Any] | None, criteria: Iterable[Any] | None) -> None:
    """Refuse what ``generate`` offers and a decode by blocks does not do."""
    if (beams := getattr(config, "num_beams", None) or 1) != 1:
        raise GenerateError(f"num_beams is {beams}, but blocks are decoded without beams; leave num_beams out")
    if getattr(config, "do_sample", None):
        raise GenerateError(
            "do_sample is True, but how tokens are drawn is part of the policy that drafts were calibrated for; give "
            "do_sample=False, and for drawn tokens drafts of a policy such as 'static:1@temperature=0.7'"
        )
    names = [type(one).__name__ for one in processors or ()]
    if names:
        raise GenerateError(
            f"the generation configuration asks for {', '.join(names)}, which would change what the policy sees; leave "
            "such arguments out, or give a generation_config without them"
        )
    others = [name for one in criteria or () if (name := type(one).__name__) not in _KEPT_CRITERIA]
    if others:
        raise GenerateError(
            f"stopping by {', '.join(others)} is not possible: a decode ends with its length, or after the block that "
            "holds an end token; leave it out, or give eos_token_id"
        )


def _prompts(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> list[list[int]]:
    """The token ids of every row without its padding; refuses inputs that cannot be followed."""
    cached, mask = model_kwargs.get("past_key_values"), model_kwargs.get("attention_mask")
    if cached is not None and cached.get_seq_length():
        raise GenerateError(
            f"past_key_values holds {cached.get_seq_length()} rows, but a block-wise decode keeps its own cache; give "
            "the whole prompt and no past_key_values"
        )
    if model_kwargs.get("inputs_embeds") is not None:
        raise GenerateError("inputs_embeds cannot be decoded here; give input_ids")
    kept = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    if kept.shape != input_ids.shape or (kept[:, 1:] < kept[:, :-1]).any():
        raise GenerateError(
            f"attention_mask of shape {tuple(kept.shape)} beside input_ids of shape {tuple(input_ids.shape)} does not "
            "pad on the left alone; set padding_side='left' in the tokenizer"
        )
    positions = model_kwargs.get("position_ids")
    if positions is not None and (positions != (kept.cumsum(dim=1) - 1))[kept.to(positions.device)].any():
        raise GenerateError("position_ids do not count a prompt's tokens from 0; leave them out")
    return [row[flags].tolist() for row, flags in zip(input_ids.cpu(), kept.cpu(), strict=True)]


def _new_tokens(config: Any, prompt_length: int) -> int:
    """How many tokens are generated; ``generate`` has already turned all ways to say it into ``max_length``."""
    if config.max_length is not None:
        return int(config.max_length) - prompt_length
    if config.max_new_tokens is None:
        raise GenerateError("nothing says how many tokens to generate; give max_new_tokens")
    return int(config.max_new_tokens)


def _token_ids(value: Any) -> tuple[int, ...]:
    """Token ids of a configuration: none, one, or several."""
    if value is None:
        return ()
    return tuple(map(int, torch.as_tensor(value).reshape(-1).tolist()))


def _settle(
    drafts: Any, policy: str | None, stated: dict[str, Any], *, generation_length: int, **options: Any
) -> _Asked:
    """The drafter, the policy and the configuration; what is not stated is the file's."""
    drafter, valid = drafter_of(drafts if drafts is not None else ())
    if policy is None and valid is None:
        raise GenerateError("nothing says by which policy to decode; give policy, for example 'threshold:0.9'")
    chosen = make_policy(policy) if policy is not None else make_policy(cast(Validity, valid).policy)
    shape = {} if valid is None else {name: getattr(valid, name) for name in stated}
    shape = _without_none(shape | _without_none(stated))
    least = max(drafter.max_vocabulary_rank, chosen.ranks)
    config = DecodeConfig(
        **shape, generation_length=generation_length, top_j=max(least, valid.top_j if valid else 1), **options
    )
    if valid is not None:
        run = run_validity(valid.model, valid.model_revision, chosen, config)
        if wrong := valid.mismatches(run, "the drafts were made"):
            raise GenerateError(
                f"the drafts do not fit what is asked for: {'; '.join(wrong)}; leave out what the file says itself"
            )
    return _Asked(drafter, chosen, config, valid)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_commit(model: Any, valid: Validity | None) -> None:
    """Refuse drafts of another commit of the hub, where both sides name one."""
    loaded = getattr(model.config, "_commit_hash", None)
    if valid is None or valid.model_revision is None or loaded is None:
        return
    if len(valid.model_revision) == len(loaded) == _COMMIT and valid.model_revision != loaded:
        raise ValidityMismatchError(
            f"the drafts were made for {valid.model} at commit {valid.model_revision}, the model was loaded from "
            f"commit {loaded}; load that commit by revision=..., or calibrate again"
        )


def denoiser_for(model: Any, denoiser: Denoiser | None, mask_token_id: int | None, logits_shift: int = 0) -> Denoiser:
    """``denoiser``, or ``model`` behind the runtime's protocol, asked once whether it follows its attention mask.

    Raises:
        GenerateError: a denoiser of another model or mask token, or no mask token known.
        verify.runtimes.transformers_probe.MaskIgnoredError: the model does not follow its mask.
        ValueError: as in :class:`verify.runtimes.transformers_model.TransformersDenoiser`.
    """
    if denoiser is not None:
        if getattr(denoiser, "model", model) is not model:
            raise GenerateError("the denoiser holds another model than the one that generates; give that model's own")
        if mask_token_id not in (None, denoiser.mask_token_id):
            raise GenerateError(
                f"mask_token_id is {mask_token_id}, but the denoiser's is {denoiser.mask_token_id}; leave one out"
            )
        return denoiser
    mask = mask_token_id if mask_token_id is not None else getattr(model.config, "mask_token_id", None)
    if mask is None:
        raise GenerateError(
            f"{type(model).__name__} names no mask token in its configuration; give mask_token_id, or the denoiser of "
            "a loaded checkpoint"
        )
    made = TransformersDenoiser(model, int(mask), logits_shift)
    probed = _PROBED.setdefault(model, set())
    if (made.mask_token_id, logits_shift) not in probed:
        probe_mask(made)
        probed.add((made.mask_token_id, logits_shift))
    return made
