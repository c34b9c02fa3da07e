"""``decode``: prompts are decoded, plainly or with drafts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.drafters import load_of, read_drafter, rule_for, settings_for
from studies.cli.guard import command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from calibrate.models.checkpoint import Checkpoint
    from calibrate.prompts.prompt import Prompt
    from verify.decoding import DecodeResult


@command()
def decode_command(
    out: options.OutOption,
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    split: options.SplitOption = None,
    split_fraction: options.SplitFractionOption = None,
    limit: options.LimitOption = None,
    chat: options.ChatOption = False,
    ignore_end_tokens: options.IgnoreEndOption = False,
    graph: options.DrafterGraphOption = None,
    drafter: options.DrafterOption = None,
    drafts: options.DraftsOption = None,
    policy: options.DrafterPolicyOption = None,
    temperature: options.DrafterTemperatureOption = None,
    top_p: options.TopPOption = None,
    top_k: options.TopKOption = None,
    block_length: options.DrafterBlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.DrafterCacheOption = None,
    schedule: options.ScheduleOption = None,
    backend: options.BackendOption = "packed",
    seed: options.SeedOption = 0,
    batch_size: options.BatchSizeOption = 1,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
    counts: Annotated[
        Path | None,
        typer.Option("--counts", help="With --graph: write what the graph accepted, for `draftgraph watch`."),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Decode prompts, plainly, with a draft graph or with informed drafts, into JSONL."""
    from calibrate.measuring.memory import explained
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for
    from calibrate.prompts.source import load_prompt_set
    from verify.counting import AcceptanceCounter, save_counts
    from verify.decoding import decode_batch
    from verify.drafters.graph import GraphDrafter
    from verify.verifier import run_validity

    check_output(out, overwrite)
    asked = read_drafter(drafter, graph, drafts)
    if counts is not None:
        if asked is None or asked.graph is None:
            raise ValueError("--counts counts the nodes of a graph; give --graph GRAPH.json, or leave --counts out")
        check_output(counts, overwrite)
    spec, rule = rule_for(asked, policy, temperature, top_p, top_k)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction, default="test")
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    settings = settings_for(
        asked,
        checkpoint,
        spec,
        block_length=block_length,
        cache=cache,
        schedule=schedule,
        generation_length=generation_length,
        ignore_end_tokens=ignore_end_tokens,
        backend=backend,
        seed=seed,
    )
    config = settings.config
    validity = run_validity(checkpoint.name, checkpoint.revision, rule, config)
    if asked is not None:
        asked.check(validity, policy)
    if asked is None or asked.validity is None:
        printing.say(f"policy {rule.spec}, {settings.note}")
    proposed = asked.drafter if asked is not None else GraphDrafter()
    run = {
        "model": checkpoint.name, "model_revision": checkpoint.revision, "dtype": dtype, "policy": rule.spec,
        "temperature": rule.temperature, "drafter": None if asked is None else asked.description(), **asdict(config),
    }  # fmt: skip
    done: dict[int, dict[str, Any]] = {}  # in the order in which a batch finishes them
    counter = None
    if counts is not None and asked is not None and asked.graph is not None:
        counter = AcceptanceCounter(asked.graph.nodes[1:], checkpoint.denoiser.mask_token_id)
    results = decode_batch(
        checkpoint.denoiser, list(enumerate(encoded)), rule, config, proposed,
        batch_size=batch_size, observer=counter, forward_observer=counter,
    )  # fmt: skip
    try:
        with (
            explained(checkpoint.denoiser, load_of(proposed, config, encoded, batch_size)),
            RichReporter(printing.console).task("decode", len(encoded)) as advance_to,
        ):
            for prompt_index, result in results:
                done[prompt_index] = _line(prompt_set[prompt_index], result, checkpoint, run)
                advance_to(len(done))
    except BaseException:
        if done:
            partial = out.with_name(out.name + ".partial")
            _write_lines(partial, [done[prompt_index] for prompt_index in sorted(done)])
            printing.complain(f"the {len(done)} of {len(encoded)} prompts that were done are in {partial}")
        raise
    lines = [done[prompt_index] for prompt_index in sorted(done)]
    _write_lines(out, lines)
    if counts is not None and counter is not None:
        save_counts(counter.counts(validity), counts)
    steps, forwards = sum(line["steps"] for line in lines), sum(line["forwards"] for line in lines)
    printing.say(
        f"{len(lines)} prompts in ",
        printing.bold(out),
        f": {steps} denoising steps in {forwards} forward passes ({steps / forwards:.2f} steps per forward)",
    )


def _line(prompt: Prompt, result: DecodeResult, checkpoint: Checkpoint, run: dict[str, Any]) -> dict[str, Any]:
    tokens = result.tokens[: result.end]
    return {
        "id": prompt.id,
        "tokens": tokens,
        "text": checkpoint.text(tokens),
        "steps": result.steps,
        "forwards": result.forwards,
        "query_tokens": result.query_tokens,
        "run": run,
    }


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    from verify.files.writing import write_atomically

    with write_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
