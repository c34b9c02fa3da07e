"""``record``: a model decodes prompts, plainly or with drafts, and what it did is written down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.drafters import (
    DEFAULT_TOP_J,
    INFORMED,
    informed_drafter,
    load_of,
    read_drafter,
    rule_for,
    settings_for,
)
from studies.cli.guard import command
from studies.cli.lists import parse_list

if TYPE_CHECKING:
    from calibrate.progress import Reporter
    from calibrate.recording.recorder import RecordingSpeed
    from calibrate.traces.state_log import StateLog
    from studies.cli.drafters import AskedDrafter

#: Vocabulary ranks of a state log where nothing is said: drafters read one or two, and a log grows with each.
STATE_LOG_TOP_J = 2


@command(resumes=True, together=True)
def record_command(
    out: options.OutOption,
    model: options.ModelOption = "bundled",
    prompts: options.PromptsOption = "bundled",
    split: options.SplitOption = None,
    split_fraction: options.SplitFractionOption = None,
    limit: options.LimitOption = None,
    chat: options.ChatOption = False,
    ignore_end_tokens: options.IgnoreEndOption = False,
    graph: options.DrafterGraphOption = None,
    drafter: Annotated[
        str | None,
        typer.Option(
            "--drafter",
            help="Record state logs instead of a trace: every state that a decode with these drafts evaluates. graph, "
            "informed, or a drafter file. [default: graph where --graph is given, else plain decoding]",
        ),
    ] = None,
    drafts: Annotated[
        str | None,
        typer.Option(
            "--drafts",
            help="Numbers of drafts of --drafter informed, 16,8,4; each is recorded into a folder of its own. "
            "[default: 10]",
        ),
    ] = None,
    policy: options.DrafterPolicyOption = None,
    temperature: options.DrafterTemperatureOption = None,
    top_p: options.TopPOption = None,
    top_k: options.TopKOption = None,
    block_length: options.DrafterBlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.DrafterCacheOption = None,
    schedule: options.ScheduleOption = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", help="Of a state log: how drafts enter a forward, packed or expanded. [default: packed]"
        ),
    ] = None,
    top_j: Annotated[
        int | None, typer.Option("--top-j", min=1, help="Vocabulary ranks to record. [default: 8, of a state log 2]")
    ] = None,
    seed: options.SeedOption = 0,
    batch_size: options.BatchSizeOption = 1,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
) -> None:
    """Record traces of plain decoding, or state logs of decodes with drafts; run it again to go on after a stop.

    A trace predicts every draft graph. What drafts that learn cost is predicted by a state log, which a decode with
    such drafts leaves; it lies in OUT/informed-16 for --drafter informed --drafts 16.

    Started by torchrun, every process records a share of the prompts of a trace (docs/recording.md).
    """
    from calibrate.measuring.memory import explained
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for
    from calibrate.prompts.source import describe_source, load_prompt_set
    from calibrate.recording.states import record_states
    from calibrate.recording.workers import join_workers
    from studies.runs.recordings import record_with_progress
    from verify.verifier import run_validity

    workers = join_workers()
    if workers is not None:
        device = workers.device(device)
    asked = _asked(drafter, graph, drafts)
    if workers is not None and asked:
        raise ValueError("a state log is recorded by one process; start it without torchrun")
    if backend is not None and not asked:
        raise ValueError("--backend says how drafts enter a forward, and a trace has none; leave it out")
    first = asked[0] if asked else None
    spec, rule = rule_for(first, policy, temperature, top_p, top_k)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction)
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    settings = settings_for(
        first,
        checkpoint,
        spec,
        block_length=block_length,
        cache=cache,
        schedule=schedule,
        generation_length=generation_length,
        ignore_end_tokens=ignore_end_tokens,
        backend=backend or "packed",
        top_j=top_j or (max(map(_least_top_j, asked)) if asked else DEFAULT_TOP_J),
        seed=seed,
    )
    config = settings.config
    if workers is None or workers.leads:
        printing.say(settings.note)
    reporter, source = RichReporter(printing.console), describe_source(prompts, split, split_fraction)
    run = run_validity(checkpoint.name, checkpoint.revision, rule, config)
    for one in asked:
        one.check(run, policy)
    if asked:
        recording = partial(
            record_states, checkpoint, encoded, rule, config, batch_size=batch_size, chat=chat, prompt_source=source
        )
        for one in asked:
            load = load_of(one.drafter, config, encoded, batch_size)
            with explained(checkpoint.denoiser, load):
                _record_log(recording, one, out / one.name, reporter, len(encoded))
        return
    with explained(checkpoint.denoiser, load_of(None, config, encoded, batch_size)):
        traces = record_with_progress(
            checkpoint,
            encoded,
            rule,
            config,
            out,
            reporter,
            rule.spec,
            batch_size=batch_size,
            chat=chat,
            prompt_source=source,
            workers=workers,
        )
    if traces is None:  # the leader of the workers reports
        return
    printing.say(
        f"{traces.n_steps} denoising steps of {len(encoded)} prompts in ",
        printing.bold(out),
        f" (trace hash {traces.trace_hash()[:12]})",
    )


def _asked(drafter: str | None, graph: Path | None, drafts: str | None) -> list[AskedDrafter]:
    """The drafters whose decodes are logged, one for each number of drafts; none for a trace of plain decoding."""
    if drafter == INFORMED and graph is None and drafts is not None:
        numbers = parse_list(drafts, int, "--drafts", "16,8,4", least=0)
        return [informed_drafter(number) for number in dict.fromkeys(numbers)]
    asked = read_drafter(drafter, graph, None if drafts is None else 0)  # a number there is refused, whatever it is
    return [] if asked is None else [asked]


def _least_top_j(asked: AskedDrafter) -> int:
    """Vocabulary ranks that a log of these decodes keeps where nothing is said."""
    made = asked.validity.top_j if asked.validity is not None else 1
    return max(STATE_LOG_TOP_J, made, asked.drafter.max_vocabulary_rank)


def _record_log(
    recording: Callable[..., StateLog], asked: AskedDrafter, folder: Path, reporter: Reporter, prompts: int
) -> None:
    """Record one log with progress, and say what it holds."""
    speeds: list[RecordingSpeed] = []
    with reporter.task(f"record {asked.name}", prompts) as advance_to:
        log = recording(
            folder=folder, drafter=asked.drafter, on_prompt=lambda done, _: advance_to(done), on_end=speeds.append
        )
    printing.say(f"{speeds[0].sentence()}; {log.states} states of {prompts} prompts in ", printing.bold(folder))
