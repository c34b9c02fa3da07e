"""``record`` and ``decode``: a model is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.checkpoints import Checkpoint, check_attention, load_checkpoint
from calibrate.files import write_atomically
from calibrate.prompts import Prompt, encode_prompts, load_prompt_set
from calibrate.recorder import record
from studies.cli import app as cli
from studies.progress import RichReporter
from verify.decode import DecodeConfig, decode
from verify.graph_file import GraphFile, load_graph
from verify.policies import make_policy
from verify.verifier import graph_mismatches

OutOption = Annotated[Path, typer.Option("--out", help="Where to write.")]


def decode_config(checkpoint: Checkpoint, **options: Any) -> DecodeConfig:
    """The decode configuration of a checkpoint under command-line options."""
    return DecodeConfig(end_token_ids=checkpoint.end_token_ids, **options)


def encoded_prompts(prompts: Sequence[Prompt], checkpoint: Checkpoint) -> list[tuple[int, ...]]:
    """Token ids of prompts for a checkpoint; raises PromptError for one that it cannot decode."""
    denoiser = checkpoint.denoiser
    return encode_prompts(prompts, checkpoint.tokenizer, denoiser.vocabulary_size, denoiser.mask_token_id)


@cli.command("record", resumes=True)
def record_command(
    out: OutOption,
    model: cli.ModelOption = "bundled",
    prompts: cli.PromptsOption = "bundled",
    split: Annotated[
        str, typer.Option(help="Split of the bundled prompts: calibration, validation, test.")
    ] = "calibration",
    limit: cli.LimitOption = None,
    policy: cli.PolicyOption = "threshold:0.9",
    temperature: cli.TemperatureOption = 0.0,
    block_length: cli.BlockLengthOption = 32,
    generation_length: cli.GenerationLengthOption = 96,
    context: cli.ContextOption = "dual",
    top_j: cli.TopJOption = 8,
    seed: cli.SeedOption = 0,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    mask_token_id: cli.MaskOption = None,
) -> None:
    """Record acceptance traces of plain decoding; run it again to go on after a stop."""
    rule = make_policy(policy, temperature)
    prompt_set = load_prompt_set(prompts, split, limit)
    checkpoint = load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id)
    encoded = encoded_prompts(prompt_set, checkpoint)
    config = decode_config(
        checkpoint,
        block_length=block_length,
        generation_length=generation_length,
        context=context,
        top_j=top_j,
        seed=seed,
    )
    reporter = RichReporter(cli.console)
    with reporter.task(f"record {rule.spec}", len(encoded)) as advance_to:
        traces = record(checkpoint, encoded, rule, config, out, on_prompt=lambda done, _: advance_to(done))
    cli.console.print(
        f"{traces.n_steps} denoising steps of {len(encoded)} prompts in [bold]{out}[/] "
        f"(trace hash {traces.trace_hash()[:12]})"
    )


@cli.command("decode")
def decode_command(
    out: OutOption,
    model: cli.ModelOption = "bundled",
    prompts: cli.PromptsOption = "bundled",
    split: Annotated[str, typer.Option(help="Split of the bundled prompts.")] = "test",
    limit: cli.LimitOption = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", help="Speculate with this graph; plain decoding without.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Unmasking policy; by default the graph's.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="By default the graph's.")] = None,
    block_length: Annotated[int | None, typer.Option("--block-length", min=1, help="By default the graph's.")] = None,
    generation_length: cli.GenerationLengthOption = 96,
    context: Annotated[str | None, typer.Option("--context", help="By default the graph's.")] = None,
    backend: cli.BackendOption = "packed",
    seed: cli.SeedOption = 0,
    dtype: cli.DtypeOption = "float32",
    device: cli.DeviceOption = "cpu",
    mask_token_id: cli.MaskOption = None,
    overwrite: cli.OverwriteOption = False,
) -> None:
    """Decode prompts, plainly or with a draft graph, into JSONL."""
    cli.check_output(out, overwrite)
    file: GraphFile | None = load_graph(graph) if graph is not None else None
    valid = file.validity if file is not None else None
    spec = policy or (valid.policy if valid else "threshold:0.9")
    heat = temperature if temperature is not None else (valid.temperature if valid else 0.0)
    rule = make_policy(spec, heat)
    prompt_set = load_prompt_set(prompts, split, limit)
    checkpoint = load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id)
    encoded = encoded_prompts(prompt_set, checkpoint)
    config = decode_config(
        checkpoint,
        block_length=block_length or (valid.block_length if valid else 32),
        generation_length=generation_length,
        context=context or (valid.context if valid else "dual"),
        backend=backend,
        top_j=valid.top_j if valid else 8,
        seed=seed,
    )
    check_attention(checkpoint, config.context)
    if file is not None:
        wrong = graph_mismatches(file, checkpoint.name, checkpoint.revision, rule, config)
        if wrong:
            raise ValueError(f"{graph} is not valid for this run: " + "; ".join(wrong))
    nodes = file.nodes[1:] if file is not None else ()
    lines: list[dict[str, Any]] = []
    try:
        with RichReporter(cli.console).task("decode", len(encoded)) as advance_to:
            for sample, (prompt, ids) in enumerate(zip(prompt_set, encoded, strict=True)):
                result = decode(checkpoint.denoiser, ids, rule, config, nodes, sample=sample)
                lines.append(
                    {
                        "id": prompt.id,
                        "tokens": result.tokens[: result.end],
                        "text": checkpoint.text(result.tokens[: result.end]),
                        "steps": result.steps,
                        "forwards": result.forwards,
                        "rows": result.rows,
                    }
                )
                advance_to(sample + 1)
    except BaseException:
        if lines:
            partial = out.with_name(out.name + ".partial")
            _write_lines(partial, lines)
            cli.errors.print(f"the {len(lines)} of {len(encoded)} prompts that were done are in {partial}")
        raise
    _write_lines(out, lines)
    steps, forwards = sum(line["steps"] for line in lines), sum(line["forwards"] for line in lines)
    cli.console.print(
        f"{len(lines)} prompts in [bold]{out}[/]: {steps} denoising steps in {forwards} forward passes "
        f"({steps / forwards:.2f} steps per forward)"
    )


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
