"""``record`` and ``decode``: a model is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.files import write_atomically
from calibrate.measuring.memory import Load, explained
from calibrate.models.checkpoint import Checkpoint, check_attention, load_checkpoint
from calibrate.progress import RichReporter
from calibrate.prompts.encoding import encode_for
from calibrate.prompts.prompt import Prompt
from calibrate.prompts.source import has_splits, load_prompt_set
from calibrate.recording.workers import join_workers
from studies.cli import app as cli
from studies.cli.graph_commands import read_graph, unfit
from studies.runs.recordings import record_with_progress
from verify.decoding import DecodeConfig, DecodeResult, decode_batch
from verify.graph.file import GraphFile
from verify.policies.specification import make_policy
from verify.verifier import graph_mismatches

OutOption = Annotated[Path, typer.Option("--out", help="Where to write.")]


def decode_config(checkpoint: Checkpoint, **options: Any) -> DecodeConfig:
    """The decode configuration of a checkpoint under command-line options."""
    return DecodeConfig(end_token_ids=checkpoint.end_token_ids, **options)


def encoded_prompts(prompts: Sequence[Prompt], checkpoint: Checkpoint, chat: bool = False) -> list[tuple[int, ...]]:
    """Token ids of prompts for a checkpoint; raises PromptError for one that it cannot decode."""
    return encode_for(checkpoint, prompts, chat=chat)


@cli.command("record", resumes=True, together=True)
def record_command(
    out: OutOption,
    model: cli.ModelOption = "bundled",
    prompts: cli.PromptsOption = "bundled",
    split: Annotated[
        str, typer.Option(help="Split of bundled prompts and datasets: calibration, validation, test.")
    ] = "calibration",
    limit: cli.LimitOption = None,
    chat: cli.ChatOption = False,
    policy: cli.PolicyOption = "threshold:0.9",
    temperature: cli.TemperatureOption = 0.0,
    block_length: cli.BlockLengthOption = 32,
    generation_length: cli.GenerationLengthOption = 96,
    cache: cli.CacheOption = "dual",
    top_j: cli.TopJOption = 8,
    seed: cli.SeedOption = 0,
    batch_size: cli.BatchSizeOption = 1,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    revision: cli.RevisionOption = None,
    mask_token_id: cli.MaskOption = None,
    compiled: cli.CompileOption = False,
    cuda_graphs: cli.GraphsOption = False,
) -> None:
    """Record acceptance traces of plain decoding; run it again to go on after a stop.

    Started by torchrun, every process records a share of the prompts (docs/recording.md).
    """
    workers = join_workers()
    if workers is not None:
        device = workers.device(device)
    rule = make_policy(policy, temperature)
    prompt_set = load_prompt_set(prompts, split, limit)
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encoded_prompts(prompt_set, checkpoint, chat)
    config = decode_config(
        checkpoint,
        block_length=block_length,
        generation_length=generation_length,
        cache=cache,
        top_j=top_j,
        seed=seed,
    )
    with explained(checkpoint.denoiser, Load.of_decode(config, [len(prompt) for prompt in encoded], batch_size, 0)):
        traces = record_with_progress(
            checkpoint,
            encoded,
            rule,
            config,
            out,
            RichReporter(cli.console),
            rule.spec,
            batch_size=batch_size,
            chat=chat,
            prompt_source=f"{prompts}, {split}" if has_splits(prompts) else prompts,
            workers=workers,
        )
    if traces is None:  # the leader of the workers reports
        return
    cli.console.print(
        f"{traces.n_steps} denoising steps of {len(encoded)} prompts in [bold]{out}[/] "
        f"(trace hash {traces.trace_hash()[:12]})"
    )


@cli.command("decode")
def decode_command(
    out: OutOption,
    model: cli.ModelOption = "bundled",
    prompts: cli.PromptsOption = "bundled",
    split: Annotated[str, typer.Option(help="Split of bundled prompts and datasets.")] = "test",
    limit: cli.LimitOption = None,
    chat: cli.ChatOption = False,
    graph: Annotated[
        Path | None, typer.Option("--graph", help="Speculate with this graph; plain decoding without.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Unmasking policy; by default the graph's.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="By default the graph's.")] = None,
    block_length: Annotated[int | None, typer.Option("--block-length", min=1, help="By default the graph's.")] = None,
    generation_length: cli.GenerationLengthOption = 96,
    cache: Annotated[str | None, typer.Option("--cache", help="By default the graph's.")] = None,
    backend: cli.BackendOption = "packed",
    seed: cli.SeedOption = 0,
    batch_size: cli.BatchSizeOption = 1,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    revision: cli.RevisionOption = None,
    mask_token_id: cli.MaskOption = None,
    compiled: cli.CompileOption = False,
    cuda_graphs: cli.GraphsOption = False,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Decode prompts, plainly or with a draft graph, into JSONL."""
    cli.check_output(out, overwrite)
    file: GraphFile | None = read_graph(graph) if graph is not None else None
    valid = file.validity if file is not None else None
    spec = policy or (valid.policy if valid else "threshold:0.9")
    heat = temperature if temperature is not None else (valid.temperature if valid else 0.0)
    rule = make_policy(spec, heat)
    prompt_set = load_prompt_set(prompts, split, limit)
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encoded_prompts(prompt_set, checkpoint, chat)
    config = decode_config(
        checkpoint,
        block_length=block_length or (valid.block_length if valid else 32),
        generation_length=generation_length,
        cache=cache or (valid.cache if valid else "dual"),
        backend=backend,
        top_j=valid.top_j if valid else 8,
        seed=seed,
    )
    check_attention(checkpoint, config.cache)
    if file is not None:
        wrong = graph_mismatches(file, checkpoint.name, checkpoint.revision, rule, config)
        if wrong:
            raise ValueError(f"{graph} is not valid for this run: " + unfit(wrong, policy))
    nodes = file.nodes[1:] if file is not None else ()
    done: dict[int, dict[str, Any]] = {}  # in the order in which a batch finishes them
    results = decode_batch(checkpoint.denoiser, list(enumerate(encoded)), rule, config, nodes, batch_size=batch_size)
    try:
        load = Load.of_decode(config, [len(prompt) for prompt in encoded], batch_size, len(nodes))
        with explained(checkpoint.denoiser, load), RichReporter(cli.console).task("decode", len(encoded)) as advance_to:
            for prompt_index, result in results:
                done[prompt_index] = _line(prompt_set[prompt_index], result, checkpoint)
                advance_to(len(done))
    except BaseException:
        if done:
            partial = out.with_name(out.name + ".partial")
            _write_lines(partial, [done[prompt_index] for prompt_index in sorted(done)])
            cli.errors.print(f"the {len(done)} of {len(encoded)} prompts that were done are in {partial}")
        raise
    lines = [done[prompt_index] for prompt_index in sorted(done)]
    _write_lines(out, lines)
    steps, forwards = sum(line["steps"] for line in lines), sum(line["forwards"] for line in lines)
    cli.console.print(
        f"{len(lines)} prompts in [bold]{out}[/]: {steps} denoising steps in {forwards} forward passes "
        f"({steps / forwards:.2f} steps per forward)"
    )


def _line(prompt: Prompt, result: DecodeResult, checkpoint: Checkpoint) -> dict[str, Any]:
    tokens = result.tokens[: result.end]
    return {
        "id": prompt.id,
        "tokens": tokens,
        "text": checkpoint.text(tokens),
        "steps": result.steps,
        "forwards": result.forwards,
        "query_tokens": result.query_tokens,
    }


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
