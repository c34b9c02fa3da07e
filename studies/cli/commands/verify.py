"""``verify``: a graph is run beside plain decoding; in low precision, beside what batching does to plain decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from studies.cli import options, printing
from studies.cli.graphs import read_graph, unfit
from studies.cli.guard import EXIT_NOT_IDENTICAL, command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from figures.records.divergence import Measure
    from studies.divergence.arms import Reference
    from studies.divergence.summary import Arm, DivergenceReport
    from verify.layout import Exactness


EXACT_DTYPE = "float32"


SHOWN_DIVERGENCES = 5


@command()
def verify_command(
    graph: options.GraphArgument,
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    split: options.SplitOption = None,
    split_fraction: options.SplitFractionOption = None,
    limit: options.LimitOption = 16,
    chat: options.ChatOption = False,
    ignore_end_tokens: options.IgnoreEndOption = False,
    policy: Annotated[str | None, typer.Option("--policy", help="By default the graph's.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="By default the graph's.")] = None,
    block_length: Annotated[int | None, typer.Option("--block-length", min=1, help="By default the graph's.")] = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: Annotated[str | None, typer.Option("--cache", help="By default the graph's.")] = None,
    backend: options.BackendOption = "packed",
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = EXACT_DTYPE,
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
    divergence: Annotated[
        bool | None,
        typer.Option(
            "--divergence/--no-divergence",
            help="Also decode plainly at another batch size, again, and with blank drafts, and say where and how "
            "narrowly each parts. By default in low precision only.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=2, help="Prompts decoded at a time where batching is looked at.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the divergence report as JSON, its divergences as CSV beside it."),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Decode prompts plainly and with the graph; compare tokens, and forwards counted with forwards predicted.

    Exit code 3 when an exact mode gives other tokens or another number of forwards in float32. In bfloat16 and float16
    this is no error: batch shapes change bits there, with drafts and without. What is then reported is how often tokens
    change through speculation and how often through batching alone.
    """
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.models.settings import decode_settings
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for, prompt_set_hash
    from calibrate.prompts.source import load_prompt_set
    from calibrate.recording.builder import TraceBuilder
    from drafting.anchors import AnchorTable
    from drafting.replay import replay
    from studies.divergence.arms import ARMS, DRAFTS, Setting, run_arm, run_reference
    from studies.divergence.file import csv_path, save_divergence
    from studies.divergence.summary import summarise
    from verify.drafts import DraftFiller
    from verify.layout import exactness
    from verify.policies.specification import make_policy
    from verify.verifier import ValidityMismatchError, graph_mismatches

    asked = dtype != EXACT_DTYPE if divergence is None else divergence
    if out is not None:
        if not asked:
            raise ValueError(f"--out keeps the divergence report, and in {dtype} there is none without --divergence")
        for path in (out, csv_path(out)):
            check_output(path, overwrite)
    file = read_graph(graph)
    valid = file.validity
    heat = valid.temperature if temperature is None else temperature
    rule = make_policy(policy or valid.policy, heat)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction, default="test")
    if asked and len(prompt_set) < 2:
        raise ValueError("one prompt makes no batch to compare with; give --limit 2 or more, or --no-divergence")
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    config = decode_settings(
        checkpoint,
        policy or valid.policy,
        block_length=block_length or valid.block_length,
        cache=cache or valid.cache,
        generation_length=generation_length,
        ignore_end_tokens=ignore_end_tokens,
        backend=backend,
        top_j=max(valid.top_j, 2),  # a margin is between two tokens
        seed=seed,
    ).config
    if wrong := graph_mismatches(file, checkpoint.name, checkpoint.revision, rule, config):
        raise ValidityMismatchError("the graph is not valid for this run: " + unfit(wrong, policy))
    promise = exactness(config.cache, config.backend)
    setting = Setting(checkpoint.denoiser, encoded, rule, config, DraftFiller(file.nodes[1:]))
    names = ARMS if asked else (DRAFTS,)
    builder = TraceBuilder()
    with RichReporter(printing.console).task(f"verify {graph.name}", len(encoded) * (1 + len(names))) as advance_to:
        done = 0

        def on_prompt() -> None:
            nonlocal done
            done += 1
            advance_to(done)

        reference = run_reference(setting, observer=builder, on_prompt=on_prompt)
        runs = [run_arm(name, setting, reference, batch=batch_size, on_prompt=on_prompt) for name in names]
    report = summarise(dtype, rule, reference, runs)
    drafts = report.arm(DRAFTS)
    predicted = replay(file.nodes[1:], AnchorTable.from_traces(builder.build(), max_depth=None)).forwards
    title = f"{graph}: {rule.spec}, {config.cache} cache, {config.backend}, {dtype}"
    table = printing.plain_table(title, {"what": "left", "result": "left"})
    for what, value in (
        ("prompts", str(len(encoded))),
        ("identical token sequences", f"{len(encoded) - sum(drafts.tokens_differ)} of {len(encoded)}"),
        ("forwards, plain", str(report.reference_forwards)),
        ("forwards, predicted", str(predicted)),
        ("forwards, counted", str(drafts.forwards)),
        ("nfe reduction", f"{report.reference_forwards / drafts.forwards:.3f}"),
        ("query tokens, plain / drafts", f"{_plain_tokens(reference)} / {drafts.rows}"),
        ("promise", _promise(promise, dtype)),
    ):
        table.add_row(what, value)
    printing.show(table)
    if asked:
        _show(report)
    if out is not None:
        sections = {
            "graph": str(graph), "drafts": file.budget, "model": checkpoint.name, "revision": checkpoint.revision,
            "prompts": str(prompts), "prompt_set_hash": prompt_set_hash(encoded), "dtype": dtype,
            "device": str(checkpoint.denoiser.device), "policy": rule.spec, "temperature": heat,
            "block_length": config.block_length, "generation_length": config.generation_length,
            "cache": config.cache, "backend": config.backend, "top_j": config.top_j, "seed": seed,
            "batch": batch_size, "chat": chat, "exact_in_float32": promise.exact,
            "forwards_predicted": predicted, "forwards_counted": drafts.forwards,
        }  # fmt: skip
        for path in save_divergence(report, sections, out):
            printing.say(printing.bold(path))
    if dtype == EXACT_DTYPE:
        _keep_promises(report, promise.exact, predicted)


def _promise(promise: Exactness, dtype: str) -> str:
    if promise.exact and dtype != EXACT_DTYPE:
        return f"exact in {EXACT_DTYPE}, measured in {dtype}: {promise.reason}"
    return f"{'exact' if promise.exact else 'near-lossless'}: {promise.reason}"


def _plain_tokens(reference: Reference) -> int:
    return sum(result.query_tokens for result in reference.results)


def _keep_promises(report: DivergenceReport, exact: bool, predicted: int) -> None:
    """Exit where float32 broke a promise: plain decoding's in every mode, speculation's in exact modes."""
    from studies.divergence.arms import DRAFTS

    broken = [arm.label for arm in report.arms if arm.name != DRAFTS and any(arm.path_parts)]
    drafts = report.arm(DRAFTS)
    if exact and (any(drafts.path_parts) or any(drafts.tokens_differ)):
        broken.append(drafts.label)
    elif exact and predicted != drafts.forwards:
        broken.append(f"forwards: {predicted} predicted, {drafts.forwards} counted")
    if broken:
        printing.complain(printing.red("not identical"), f" ({'; '.join(broken)})")
        raise typer.Exit(EXIT_NOT_IDENTICAL)


def _show(report: DivergenceReport) -> None:
    """The shares, the divergences behind changed tokens, and the sentence."""
    import numpy as np

    from studies.divergence.summary import PATH, TOKENS

    table = printing.plain_table(
        f"prompts of {report.prompts} that differ from plain decoding at batch 1, {report.dtype}",
        {"": "left", "other tokens": "right", "other path": "right", "forwards": "right", "margin": "right",
         "widest": "right"},
        "path: commits differ at some step, healed or not; margin: median of how narrow the first such decision was",
    )  # fmt: skip
    for arm in report.arms:
        margins = arm.margins()
        table.add_row(
            arm.label, _share(arm, TOKENS), _share(arm, PATH), str(arm.forwards),
            f"{np.median(margins):.2g}" if len(margins) else "", f"{margins[-1]:.2g}" if len(margins) else "",
        )  # fmt: skip
    printing.show(table)
    if any(any(arm.tokens_differ) for arm in report.arms):
        printing.show(_divergences(report.arms))
    printing.say(report.sentence)
    parted = [arm.margins()[-1] for arm in report.arms if len(arm.margins())]
    if parted and len(report.decision_margins):
        near = float((report.decision_margins <= max(parted)).mean())
        printing.say(
            f"No decode parted at a margin above {max(parted):.2g}; {100 * near:.1f} % of all decisions are so narrow."
        )


def _share(arm: Arm, measure: Measure) -> str:
    share = arm.share(measure)
    return f"{share.count} ({100 * share.low:.0f}-{100 * share.high:.0f} %)"


def _divergences(arms: Sequence[Arm]) -> Table:
    """Where decodes part whose tokens differ in the end: the first few of every way."""
    table = printing.plain_table(
        f"where decodes with other tokens part first (at most {SHOWN_DIVERGENCES} each; --out keeps all)",
        {"": "left", "prompt": "right", "block": "right", "step": "right", "at": "right", "kind": "left",
         "margin": "right", "noise": "right"},
        "at: offset in the block; noise: how far the two decodes' confidences lay apart at that step",
    )  # fmt: skip
    for arm in arms:
        changed = [divergence for divergence in arm.divergences if arm.tokens_differ[divergence.prompt_index]]
        for divergence in changed[:SHOWN_DIVERGENCES]:
            margin = "" if divergence.margin is None else f"{divergence.margin:.2g}"
            table.add_row(
                arm.label, str(divergence.prompt_index), str(divergence.block), str(divergence.step),
                str(divergence.position),
                divergence.kind, margin, f"{divergence.noise:.2g}",
            )  # fmt: skip
    return table
