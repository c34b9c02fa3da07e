"""Options and arguments that several commands share. Only typer is imported here: help must not wait for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: A command declares its options before anything heavy is imported, so these names stand here a second time;
#: tests/studies/cli/test_help.py compares them with ``drafting.searches.methods.METHODS`` and
#: ``calibrate.models.shapes.SHAPES``.
METHOD_NAMES = (
    "chain", "tree_greedy", "sequoia", "published", "published:degree0", "published:degree1/all",
    "published:degree1/chosen", "published:total/all", "published:total/chosen", "greedy", "cut", "exact",
)  # fmt: skip
SHAPE_NAMES = ("llada-8b-shaped", "sdar-8b-shaped", "llada-126m-shaped", "llada-tiny-shaped", "sdar-tiny-shaped")
METHOD_NOTE = "A reading may name a minimum count: published:degree0:20."
METHOD_HELP = f"One of {', '.join(METHOD_NAMES)}. {METHOD_NOTE}"
METHODS_HELP = f"Of {', '.join(METHOD_NAMES)}. {METHOD_NOTE}"

OutOption = Annotated[Path, typer.Option("--out", help="Where to write.")]
GraphArgument = Annotated[Path, typer.Argument(help="A graph file.")]
ShapedModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="'bundled', a local folder in Hugging Face layout, a hub id, or a shape with random weights: "
        f"{', '.join(SHAPE_NAMES)}.",
    ),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="'bundled', a local folder in Hugging Face layout, or a hub id.")
]
PromptsOption = Annotated[
    str,
    typer.Option(
        "--prompts",
        help="'bundled', 'bundled/DOMAIN+DOMAIN', a JSONL file of {\"prompt\": text} or {\"tokens\": ids}, or "
        "'datasets:NAME' (gsm8k, math500, humaneval, mbpp; see docs/recording.md).",
    ),
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help="Unmasking policy: static:k, threshold:tau, or another of docs/models.md; for example threshold:0.9.",
    ),
]
BlockLengthOption = Annotated[
    int | None,
    typer.Option(
        "--block-length", min=1, help="Positions per block. [default: what the checkpoint was trained for, or 32]"
    ),
]
GenerationLengthOption = Annotated[int, typer.Option("--generation-length", min=1, help="Positions to generate.")]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="What is cached while a block is solved: none, prefix, dual or block_causal. [default: block_causal for "
        "checkpoints of that attention, none for Dream's own policies, else dual]",
    ),
]
IgnoreEndOption = Annotated[
    bool, typer.Option("--ignore-end-tokens", help="Decode the whole length, also after an end token.")
]
DrafterOption = Annotated[
    str | None,
    typer.Option(
        "--drafter",
        help="graph, informed (drafts that learn inside a block and need no graph), or a drafter file. "
        "[default: graph where --graph is given, else plain decoding]",
    ),
]
DrafterGraphOption = Annotated[Path | None, typer.Option("--graph", help="The graph file whose drafts are used.")]
DraftsOption = Annotated[
    int | None, typer.Option("--drafts", min=0, help="Drafts per forward of --drafter informed. [default: 10]")
]
DrafterPolicyOption = Annotated[
    str | None, typer.Option("--policy", help="Unmasking policy. [default: the drafter's, else threshold:0.9]")
]
DrafterTemperatureOption = Annotated[
    float | None, typer.Option("--temperature", min=0.0, help="0 takes argmax tokens. [default: the drafter's, else 0]")
]
DrafterBlockLengthOption = Annotated[
    int | None,
    typer.Option(
        "--block-length",
        min=1,
        help="Positions per block. [default: the drafter's, else what the checkpoint was trained for, or 32]",
    ),
]
DrafterCacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="What is cached while a block is solved: none, prefix, dual or block_causal. [default: the drafter's, "
        "else as the checkpoint was trained]",
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Blocks of different lengths, at most --block-length: adablock:tau:delimiters[:default[:window]]. "
        "Delimiters are token ids joined by '+', or 'newline'; for example adablock:0.3:newline:16. "
        "[default: the drafter's, else all blocks are of one length]",
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend", help="How drafts enter a forward: packed (beside the block) or expanded (copies in the batch)."
    ),
]
TopJOption = Annotated[int, typer.Option("--top-j", min=1, help="Vocabulary ranks to record.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of stochastic policies.")]
TemperatureOption = Annotated[
    float | None,
    typer.Option("--temperature", min=0.0, help="0 takes argmax tokens. [default: as the policies say, else 0]"),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Draw from the best tokens until their probabilities exceed it, with --temperature; short for @top_p=...",
    ),
]
TopKOption = Annotated[
    int | None, typer.Option("--top-k", help="Draw from so many best tokens; short for @top_k=... behind the policy.")
]
#: Short names that are accepted beside torch's own.
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_name(text: str) -> str:
    """``bf16`` -> ``bfloat16``, and so on; what is no alias is given back as it is."""
    return DTYPE_ALIASES.get(text, text)


DtypeOption = Annotated[
    str,
    typer.Option("--dtype", callback=dtype_name, help="float32 (exact), bfloat16 or float16; or fp32, bf16, fp16."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="A torch device; cuda is each worker's own one under torchrun.")
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model. [default: main]")
]
ChatOption = Annotated[bool, typer.Option("--chat", help="Put text prompts into the model's chat template.")]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Prompts decoded at a time; in float32 the tokens are the same.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile step forwards with torch.compile; the first take up to minutes.")
]
GraphsOption = Annotated[bool, typer.Option("--cuda-graphs", help="Replay step forwards from CUDA graphs.")]
MaskOption = Annotated[int | None, typer.Option("--mask-token-id", help="For checkpoints that do not name theirs.")]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Which prompts: calibration, validation or test, or what a file's lines name."),
]
SplitFractionOption = Annotated[
    str | None,
    typer.Option(
        "--split-fraction",
        help="Cut a file that names no splits: 0.25 for test, or validation=0.1,test=0.25,seed=0; the rest calibrates.",
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use the first prompts only.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
OverwriteRunOption = Annotated[
    bool, typer.Option("--overwrite", help="Drop results that this run will not hold; recordings stay.")
]
OverwriteTracesOption = Annotated[
    bool, typer.Option("--overwrite-traces", help="Delete the results and the recordings of a run, and record again.")
]
