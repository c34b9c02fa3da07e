"""``record``: a model decodes prompts plainly, and what it did is written down."""

from __future__ import annotations

from studies.cli import options, printing
from studies.cli.guard import command


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
    policy: options.PolicyOption = "threshold:0.9",
    temperature: options.TemperatureOption = 0.0,
    block_length: options.BlockLengthOption = None,
    generation_length: options.GenerationLengthOption = 96,
    cache: options.CacheOption = None,
    top_j: options.TopJOption = 8,
    seed: options.SeedOption = 0,
    batch_size: options.BatchSizeOption = 1,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = "cpu",
    revision: options.RevisionOption = None,
    mask_token_id: options.MaskOption = None,
    compiled: options.CompileOption = False,
    cuda_graphs: options.GraphsOption = False,
) -> None:
    """Record acceptance traces of plain decoding; run it again to go on after a stop.

    Started by torchrun, every process records a share of the prompts (docs/recording.md).
    """
    from calibrate.measuring.memory import Load, explained
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.models.settings import decode_settings
    from calibrate.progress import RichReporter
    from calibrate.prompts.encoding import encode_for
    from calibrate.prompts.source import describe_source, load_prompt_set
    from calibrate.recording.workers import join_workers
    from studies.runs.recordings import record_with_progress
    from verify.policies.specification import make_policy

    workers = join_workers()
    if workers is not None:
        device = workers.device(device)
    rule = make_policy(policy, temperature)
    prompt_set = load_prompt_set(prompts, split, limit, fraction=split_fraction)
    checkpoint = load_checkpoint(
        model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision,
        compiled=compiled, cuda_graphs=cuda_graphs,
    )  # fmt: skip
    encoded = encode_for(checkpoint, prompt_set, chat=chat)
    settings = decode_settings(
        checkpoint,
        policy,
        block_length=block_length,
        cache=cache,
        generation_length=generation_length,
        ignore_end_tokens=ignore_end_tokens,
        top_j=top_j,
        seed=seed,
    )
    config = settings.config
    if workers is None or workers.leads:
        printing.say(settings.note)
    with explained(checkpoint.denoiser, Load.of_decode(config, [len(prompt) for prompt in encoded], batch_size, 0)):
        traces = record_with_progress(
            checkpoint,
            encoded,
            rule,
            config,
            out,
            RichReporter(printing.console),
            rule.spec,
            batch_size=batch_size,
            chat=chat,
            prompt_source=describe_source(prompts, split, split_fraction),
            workers=workers,
        )
    if traces is None:  # the leader of the workers reports
        return
    printing.say(
        f"{traces.n_steps} denoising steps of {len(encoded)} prompts in ",
        printing.bold(out),
        f" (trace hash {traces.trace_hash()[:12]})",
    )
