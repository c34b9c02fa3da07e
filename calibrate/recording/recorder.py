"""Recording acceptance traces: the decode loop, observed, one Parquet shard after a few prompts.

A recording is named by its folder and by the facts in its manifest (``calibrate.traces.folder``). Started again it goes
on: prompts found in whole shards are not decoded again. What is recorded reaches this module as arrays on the host, as
the loop needed them for its own decisions, so that recording moves nothing else off the device.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from calibrate.models.checkpoint import Checkpoint, check_attention
from calibrate.prompts.encoding import prompt_hash, prompt_set_hash
from calibrate.recording.builder import Builder, TraceBuilder
from calibrate.recording.stopping import signals_held
from calibrate.traces.folder import check_folder, claim_folder, recorded_prompts
from calibrate.traces.table import MAX_RANK, TraceError, Traces, read_traces, write_shard
from calibrate.version import tool_version
from verify.decoding import DecodeConfig, DecodeResult, Drafts, ForwardObserver, Observer, StepFact, decode_batch
from verify.policies.contract import Policy


@dataclass(frozen=True)
class RecordingSpeed:
    """What one call recorded, without the prompts that were there before.

    Attributes:
        prompts: prompts decoded.
        tokens: tokens generated, each answer up to its first end token.
        seconds: wall time, from the first forward to the last shard.
    """

    prompts: int
    tokens: int
    seconds: float

    def sentence(self) -> str:
        if not self.prompts:
            return "nothing was left to record"
        seconds = max(self.seconds, 1e-9)
        return (
            f"recorded {self.prompts} prompts, {self.tokens} tokens in {self.seconds:.1f} s: "
            f"{self.prompts / seconds:.3g} prompts/s, {self.tokens / seconds:.4g} tokens/s"
        )


def run_facts(
    checkpoint: Checkpoint,
    policy: Policy,
    config: DecodeConfig,
    prompts: Sequence[Sequence[int]],
    *,
    chat: bool = False,
    prompt_source: str | None = None,
    drafter: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The facts that a trace is valid for; written to the manifest and compared on a rerun.

    ``chat`` says that the prompts went through the checkpoint's chat template, ``prompt_source`` where they came from;
    what tells prompt sets apart is their hash. ``drafter`` describes the drafter of a state log
    (``Drafter.describe``); it is None for a trace of plain decoding.

    Raises:
        CheckpointError: a cache mode that the checkpoint was not trained for.
        TraceError: a block length or a number of vocabulary ranks that a trace cannot hold.
    """
    check_attention(checkpoint, config.cache)
    denoiser = checkpoint.denoiser
    top_j = min(config.top_j, denoiser.vocabulary_size - 1)
    for option, value in (("block length", config.block_length), ("top_j", top_j)):
        if value > MAX_RANK:
            raise TraceError(f"{option} is {value}; traces keep ranks in 16 bits, so give at most {MAX_RANK}")
    return {
        "model": checkpoint.name,
        "model_source": checkpoint.source or checkpoint.name,
        "model_revision": checkpoint.revision,
        "dtype": checkpoint.dtype,
        "device": denoiser.device.type,
        "device_name": _device_name(denoiser.device),
        "mask_token_id": denoiser.mask_token_id,
        "end_token_ids": list(config.end_token_ids),
        "policy": policy.spec,
        "temperature": policy.temperature,
        "block_length": config.block_length,
        "schedule": config.schedule,
        "generation_length": config.generation_length,
        "cache": config.cache,
        "top_j": top_j,
        "seed": config.seed,
        "drafter": drafter,
        "prompts": len(prompts),
        "prompt_set_hash": prompt_set_hash(prompts),
        "prompt_hashes": [prompt_hash(ids) for ids in prompts],
        "prompt_source": prompt_source,
        "chat": chat,
        "tool_version": tool_version(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def record(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: str | Path,
    *,
    batch_size: int = 1,
    chat: bool = False,
    prompt_source: str | None = None,
    shard_prompts: int = 4,
    on_prompt: Callable[[int, int], None] | None = None,
    on_end: Callable[[RecordingSpeed], None] | None = None,
) -> Traces:
    """Record plain decodes of ``prompts`` into ``folder``; go on where an earlier recording stopped.

    Ctrl-C (or any error) writes the prompts that are finished before it is passed on. Several processes record
    together with :func:`calibrate.recording.group.record_in_group`.

    Args:
        checkpoint: the model.
        prompts: token ids per prompt; the index of a prompt is its ``prompt_index``.
        policy: the unmasking policy.
        config: lengths and cache mode; its back-end plays no part, as nothing is drafted.
        folder: the trace folder; made when missing.
        batch_size: prompts decoded at a time. A batch changes the last bits of probabilities. In float32 that changes
            no commit, only, rarely, which of two tied tokens comes first (docs/recording.md); in low precision it may
            change more. So every shard says the size it was recorded with.
        chat, prompt_source: whether the prompts went through the chat template, and where they came from; facts of the
            manifest, nothing more.
        shard_prompts: prompts per shard, so what a kill can lose besides those being decoded.
        on_prompt: called with (prompts done, prompts in all) at the start and after every prompt.
        on_end: called with what this call recorded and how fast.

    Returns:
        The whole trace, read back from disk.

    Raises:
        TraceError: the folder holds a trace of other facts, a broken shard, or other files; or another recording is
            writing there.
        verify.layout.LayoutError: a batch size below 1, or lengths that do not fit.

    >>> import tempfile
    >>> from calibrate import load_checkpoint, read_traces
    >>> from verify import make_policy
    >>> checkpoint, policy = load_checkpoint("bundled"), make_policy("static:1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     traces = record(checkpoint, [[5, 6, 7]], policy, DecodeConfig(generation_length=32), folder)
    ...     same = read_traces(folder)
    >>> traces.n_steps, same.trace_hash() == traces.trace_hash()
    (32, True)
    """
    folder = Path(folder)
    facts = run_facts(checkpoint, policy, config, prompts, chat=chat, prompt_source=prompt_source)
    share = Share(checkpoint, prompts, policy, config, folder, batch_size=batch_size, shard_prompts=shard_prompts)
    record_alone(share, facts, on_prompt, on_end)
    return read_traces(folder)


def record_alone(
    share: Share,
    facts: dict[str, Any],
    on_prompt: Callable[[int, int], None] | None = None,
    on_end: Callable[[RecordingSpeed], None] | None = None,
) -> None:
    """Claim the folder of ``share`` for a recording of ``facts`` and record what is missing in it.

    ``on_prompt``, ``on_end`` and errors are those of :func:`record`.
    """
    folder, total, schema = share.folder, len(share.prompts), share.builder.schema
    report = on_prompt or (lambda *_: None)
    if check_folder(folder, facts) and len(recorded_prompts(folder, schema)) == total:
        report(total, total)  # complete: perhaps in a place where nothing can be written
        if on_end is not None:
            on_end(RecordingSpeed(0, 0, 0.0))
        return
    lock = claim_folder(folder, facts)
    try:
        done = recorded_prompts(folder, schema)
        report(len(done), total)
        todo = [prompt_index for prompt_index in range(total) if prompt_index not in done]
        start, prompts_done, tokens = time.perf_counter(), 0, 0

        def one_more(result: DecodeResult) -> None:
            nonlocal prompts_done, tokens
            prompts_done += 1
            tokens += result.end
            report(len(done) + prompts_done, total)

        share.record(todo, one_more)
        if on_end is not None:
            on_end(RecordingSpeed(prompts_done, tokens, time.perf_counter() - start))
    finally:
        lock.release()


class Share:
    """Records prompts into shards of a folder that is claimed already.

    Args:
        checkpoint, prompts, policy, config, folder, batch_size, shard_prompts: as in :func:`record`.
        prefix: of the names of the shards, so that workers never write to one name.
        observer: sees every step beside the builder.
        builder: what is written; a trace by default.
        drafts: what is evaluated beside the real block; a trace is one of plain decoding.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        policy: Policy,
        config: DecodeConfig,
        folder: Path,
        *,
        batch_size: int = 1,
        shard_prompts: int = 4,
        prefix: str = "shard-",
        observer: Observer | None = None,
        builder: Builder | None = None,
        drafts: Drafts = (),
    ) -> None:
        self.denoiser, self.prompts, self.policy, self.config = checkpoint.denoiser, prompts, policy, config
        self.folder, self.batch_size, self.shard_prompts, self.prefix = folder, batch_size, shard_prompts, prefix
        self.observer, self.drafts = observer, drafts
        self.builder: Builder = builder or TraceBuilder()
        self.shards: list[str] = []
        self._finished: list[int] = []

    def on_step(self, fact: StepFact) -> None:
        self.builder.on_step(fact)
        if self.observer is not None:
            self.observer.on_step(fact)

    def record(self, prompt_indices: Sequence[int], one_more: Callable[[DecodeResult], None]) -> None:
        """Decode the prompts ``prompt_indices``; whatever stops it, those that are finished are written.

        A prompt is reported after the shard that it fills is written.
        """
        if not prompt_indices:
            return
        todo = [(prompt_index, self.prompts[prompt_index]) for prompt_index in prompt_indices]
        left = len(todo)
        try:
            watching = cast(ForwardObserver, self.builder) if hasattr(self.builder, "on_forward") else None
            for prompt_index, result in decode_batch(
                self.denoiser, todo, self.policy, self.config, self.drafts,
                batch_size=self.batch_size, observer=self, forward_observer=watching,
            ):  # fmt: skip
                self._finished.append(prompt_index)
                left -= 1
                if len(self._finished) == self.shard_prompts or not left:
                    self._flush()
                one_more(result)
        except BaseException:
            with signals_held():
                self._flush()
            raise

    def _flush(self) -> None:
        if self._finished:
            # The first finished prompt is in no other shard, so neither is the name.
            name = f"{self.prefix}{self._finished[0]:06d}.parquet"
            table = self.builder.table(self._finished)
            facts = {
                "batch_size": self.batch_size,
                "compiled": getattr(self.denoiser, "compile_backend", None),
                "tool_version": tool_version(),
            }
            write_shard(self.folder / name, table, facts)
            # Whoever is interrupted from here on may come back: until this line the same shard is written again, after
            # it nothing is.
            written, self._finished = self._finished, []
            self.shards.append(name)
            self.builder.drop_prompts(written)
