"""``verify``: drafts are run beside plain decoding; in low precision, beside what batching does to plain decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from studies.cli import options, printing
from studies.cli.drafters import read_drafter, read_file, rule_for, settings_for
from studies.cli.guard import EXIT_BROKEN_PROMISE, command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from figures.records.divergence import Measure
    from studies.cli.drafters import AskedDrafter
    from studies.divergence.arms import Reference
    from studies.divergence.summary import Arm, DivergenceReport
    from verify.layout import Exactness


EXACT_DTYPE = "float32"


SHOWN_DIVERGENCES = 5
_NOT_PREDICTED = "not from plain decodes: these drafts learn from rejected ones (docs/recording.md)"


@command()
def verify_command(
    file: Annotated[
        Path | None, typer.Argument(help="A graph file or a drafter file; or give --graph or --drafter.")
    ] = None,
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    split: options.SplitOption = None,
    split_fraction: options.SplitFractionOption = None,
    limit: options.LimitOption = 16,
    chat: options.ChatOption = False,
    ignore_end_tokens: options.IgnoreEndOption = False,
    graph: options.DrafterGraphOption = None,
    drafter: options.DrafterOption = None,
    drafts: options.DraftsOption = None,
    policy: options.DrafterPolicyOption = None,
    temperature: options.DrafterTemperatureOption = None,
    block_length: options.DrafterBlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.DrafterCacheOption = None,
    schedule: options.ScheduleOption = None,
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
    """Decode prompts plainly and with drafts; compare tokens, and forwards counted with forwards predicted.

    Forwards with a graph are predicted from the plain decodes. Those of a drafter that learns (informed) depend on what
    its rejected drafts show, which plain decodes do not: they are counted only.

    Exit code 3 when an exact mode gives other tokens or another number of forwards in float32. In bfloat16 and float16
    this is no error: batch shapes change bits there, with drafts and without. What is then reported is how often tokens
    change through speculation and how often through batching alone.
    """
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for, prompt_set_hash
    from calibrate.prompts.source import load_prompt_set
    from calibrate.recording.builder import TraceBuilder
    from drafting.anchors import AnchorTable
    from drafting.replay import replay
    from studies.divergence.arms import ARMS, DRAFTS, Setting, run_arm, run_reference
    from studies.divergence.file import csv_path, save_divergence
    from studies.divergence.summary import summarise
    from verify.layout import exactness
    from verify.verifier import run_validity

    batching = dtype != EXACT_DTYPE if divergence is None else divergence
    if out is not None:
        if not batching:
            raise ValueError(f"--out keeps the divergence report, and in {dtype} there is none without --divergence")
        for path in (out, csv_path(out)):
            check_output(path, overwrite)
    asked = _asked(file, graph, drafter, drafts)
    spec, rule = rule_for(asked, policy, temperature)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction, default="test")
    if batching and len(prompt_set) < 2:
        raise ValueError("one prompt makes no batch to compare with; give --limit 2 or more, or --no-divergence")
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    config = settings_for(
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
    ).config
    config = replace(config, top_j=max(config.top_j, 2))  # a margin is between two tokens
    asked.check(run_validity(checkpoint.name, checkpoint.revision, rule, config), policy)
    promise = exactness(config.cache, config.backend)
    setting = Setting(checkpoint.denoiser, encoded, rule, config, asked.drafter)
    names = ARMS if batching else (DRAFTS,)
    builder = TraceBuilder()
    with RichReporter(printing.console).task(f"verify {asked.name}", len(encoded) * (1 + len(names))) as advance_to:
        done = 0

        def on_prompt() -> None:
            nonlocal done
            done += 1
            advance_to(done)

        reference = run_reference(setting, observer=builder, on_prompt=on_prompt)
        runs = [run_arm(name, setting, reference, batch=batch_size, on_prompt=on_prompt) for name in names]
    report = summarise(dtype, rule, reference, runs)
    found = report.arm(DRAFTS)
    predicted: int | None = None
    if asked.graph is not None:
        predicted = replay(asked.graph.nodes[1:], AnchorTable.from_traces(builder.build(), max_depth=None)).forwards
    title = f"{asked.said}: {rule.spec}, {config.cache} cache, {config.backend}, {dtype}"
    table = printing.plain_table(title, {"what": "left", "result": "left"})
    for what, value in (
        ("prompts", str(len(encoded))),
        ("identical token sequences", f"{len(encoded) - sum(found.tokens_differ)} of {len(encoded)}"),
        ("forwards, plain", str(report.reference_forwards)),
        ("forwards, predicted", _NOT_PREDICTED if predicted is None else str(predicted)),
        ("forwards, counted", str(found.forwards)),
        ("nfe reduction", f"{report.reference_forwards / found.forwards:.3f}"),
        ("query tokens, plain / drafts", f"{_plain_tokens(reference)} / {found.rows}"),
        ("promise", _promise(promise, dtype)),
    ):
        table.add_row(what, value)
    printing.show(table)
    if batching:
        _show(report)
    if out is not None:
        sections = {
            "drafter": asked.description(), "drafts": asked.drafter.max_drafts,
            "model": checkpoint.name, "revision": checkpoint.revision,
            "prompts": str(prompts), "prompt_set_hash": prompt_set_hash(encoded), "dtype": dtype,
            "device": str(checkpoint.denoiser.device), "policy": rule.spec, "temperature": rule.temperature,
            "block_length": config.block_length, "schedule": config.schedule,
            "generation_length": config.generation_length,
            "cache": config.cache, "backend": config.backend, "top_j": config.top_j, "seed": seed,
            "batch": batch_size, "chat": chat, "exact_in_float32": promise.exact,
            "forwards_predicted": predicted, "forwards_counted": found.forwards,
        }  # fmt: skip
        for path in save_divergence(report, sections, out):
            printing.say(printing.bold(path))
    if dtype == EXACT_DTYPE:
        _keep_promises(report, promise.exact, predicted)


def _asked(file: Path | None, graph: Path | None, drafter: str | None, drafts: int | None) -> AskedDrafter:
    """The drafter to verify: in the file that is the argument, or as the options say."""
    if file is None:
        asked = read_drafter(drafter, graph, drafts)
        if asked is None:
            raise ValueError("there is nothing to verify; give a graph or drafter file, or --drafter informed")
        return asked
    if (drafter, graph, drafts) != (None, None, None):
        raise ValueError(f"{file} says which drafts there are; leave --drafter, --graph and --drafts out")
    return read_file(file)


def _promise(promise: Exactness, dtype: str) -> str:
    if promise.exact and dtype != EXACT_DTYPE:
        return f"exact in {EXACT_DTYPE}, measured in {dtype}: {promise.reason}"
    return f"{'exact' if promise.exact else 'near-lossless'}: {promise.reason}"


def _plain_tokens(reference: Reference) -> int:
    return sum(result.query_tokens for result in reference.results)


def _keep_promises(report: DivergenceReport, exact: bool, predicted: int | None) -> None:
    """Exit where float32 broke a promise: plain decoding's in every mode, speculation's in exact modes."""
    from studies.divergence.arms import DRAFTS

    broken = [arm.label for arm in report.arms if arm.name != DRAFTS and any(arm.path_parts)]
    drafts = report.arm(DRAFTS)
    if exact and (any(drafts.path_parts) or any(drafts.tokens_differ)):
        broken.append(drafts.label)
    elif exact and predicted not in (None, drafts.forwards):
        broken.append(f"forwards: {predicted} predicted, {drafts.forwards} counted")
    if broken:
        printing.complain(printing.red("not identical"), f" ({'; '.join(broken)})")
        raise typer.Exit(EXIT_BROKEN_PROMISE)


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
