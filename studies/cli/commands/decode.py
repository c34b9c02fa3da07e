"""``decode``: prompts are decoded, plainly or with a draft graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.graphs import read_graph, unfit
from studies.cli.guard import command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from calibrate.models.checkpoint import Checkpoint
    from calibrate.prompts.prompt import Prompt
    from verify.decoding import DecodeResult
    from verify.drafters.informed import InformedDrafter


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
    graph: Annotated[
        Path | None, typer.Option("--graph", help="Speculate with this graph; plain decoding without.")
    ] = None,
    drafter: Annotated[
        str | None,
        typer.Option(
            "--drafter",
            help="graph, or informed: drafts that learn inside a block and need no graph. "
            "[default: graph where --graph is given, else plain decoding]",
        ),
    ] = None,
    drafts: Annotated[
        int | None, typer.Option("--drafts", min=0, help="Drafts per forward of --drafter informed. [default: 10]")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Unmasking policy; by default the graph's.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="By default the graph's.")] = None,
    block_length: Annotated[int | None, typer.Option("--block-length", min=1, help="By default the graph's.")] = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: Annotated[str | None, typer.Option("--cache", help="By default the graph's.")] = None,
    backend: options.BackendOption = "packed",
    seed: options.SeedOption = 0,
    batch_size: options.BatchSizeOption = 1,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Decode prompts, plainly, with a draft graph or with informed drafts, into JSONL."""
    from calibrate.measuring.memory import Load, explained
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.models.settings import decode_settings
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for
    from calibrate.prompts.source import load_prompt_set
    from verify.decoding import decode_batch
    from verify.graph.file import GraphFile
    from verify.policies.specification import make_policy
    from verify.verifier import graph_mismatches

    check_output(out, overwrite)
    informed = _informed(drafter, graph, drafts)
    file: GraphFile | None = read_graph(graph) if graph is not None else None
    valid = file.validity if file is not None else None
    spec = policy or (valid.policy if valid else "threshold:0.9")
    heat = temperature if temperature is not None else (valid.temperature if valid else 0.0)
    rule = make_policy(spec, heat)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction, default="test")
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    settings = decode_settings(
        checkpoint,
        spec,
        block_length=block_length or (valid.block_length if valid else None),
        cache=cache or (valid.cache if valid else None),
        generation_length=generation_length,
        ignore_end_tokens=ignore_end_tokens,
        backend=backend,
        top_j=valid.top_j if valid else 8,
        seed=seed,
    )
    config = settings.config
    if file is not None:
        wrong = graph_mismatches(file, checkpoint.name, checkpoint.revision, rule, config)
        if wrong:
            raise ValueError(f"{graph} is not valid for this run: " + unfit(wrong, policy))
    proposed: Any = file.nodes[1:] if file is not None else (informed or ())
    width = len(proposed) if informed is None else informed.max_drafts
    if informed is not None and config.cache == "block_causal":
        # Buffers have room for as many bridges, of two blocks each, and for a block that is carried.
        width = (3 if config.backend == "packed" else 4) * width + 1
    if file is None:
        printing.say(f"policy {rule.spec}, {settings.note}")
    run = {
        "model": checkpoint.name, "model_revision": checkpoint.revision, "dtype": dtype, "policy": rule.spec,
        "graph": None if graph is None else str(graph), "temperature": rule.temperature,
        "informed_drafts": None if informed is None else informed.max_drafts, **asdict(config),
    }  # fmt: skip
    done: dict[int, dict[str, Any]] = {}  # in the order in which a batch finishes them
    results = decode_batch(checkpoint.denoiser, list(enumerate(encoded)), rule, config, proposed, batch_size=batch_size)
    try:
        load = Load.of_decode(config, [len(prompt) for prompt in encoded], batch_size, width)
        with (
            explained(checkpoint.denoiser, load),
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
    steps, forwards = sum(line["steps"] for line in lines), sum(line["forwards"] for line in lines)
    printing.say(
        f"{len(lines)} prompts in ",
        printing.bold(out),
        f": {steps} denoising steps in {forwards} forward passes ({steps / forwards:.2f} steps per forward)",
    )


def _informed(drafter: str | None, graph: Path | None, drafts: int | None) -> InformedDrafter | None:
    """The informed drafter where it is asked for; ``ValueError`` for options that do not go together."""
    from verify.drafters.informed import InformedDrafter
    from verify.files.quoting import quoted

    if drafter not in (None, "graph", "informed"):
        raise ValueError(f"unknown drafter {quoted(drafter)}, expected graph or informed")
    if drafter == "informed":
        if graph is not None:
            raise ValueError("--drafter informed needs no graph; leave --graph out, or give --drafter graph")
        return InformedDrafter(10 if drafts is None else drafts)
    if drafts is not None:
        raise ValueError("--drafts belongs to --drafter informed; a graph holds its own number of drafts")
    if drafter == "graph" and graph is None:
        raise ValueError("--drafter graph needs the graph; give --graph FILE")
    return None


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
