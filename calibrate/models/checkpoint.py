"""Loading a model: the bundled one, a local folder or a hub id, with the facts that decoding needs.

Checkpoints that ship code of their own (LLaDA, Dream, SDAR, LLaDA2, ...) are loaded into transformers' classes by
``calibrate.models.families``; their code is neither downloaded nor run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from calibrate.bundled import MODEL_DIR
from calibrate.models.chat import chat_ids
from calibrate.models.facts import CheckpointError, end_tokens, mask_token, read_facts, trained_block_length
from calibrate.models.families import FamilySpec, family_of
from calibrate.models.families.loader import load_native
from calibrate.models.folder import folder_digest
from calibrate.models.hugging_face import HuggingFaceDenoiser
from verify.runtimes.transformers_probe import probe_mask

BUNDLED = "bundled"
#: Parameters below which a CPU forward is faster in one thread.
_ONE_THREAD_BELOW = 20_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model with what decoding must know of it.

    Attributes:
        name: of the model: ``bundled``, the hub id, or the name of a local folder, however the path to it was written.
        revision: hub commit, or a digest of a local folder's configuration and weights.
        denoiser: the model behind the runtime's protocol.
        tokenizer: transformers' tokenizer, or None when the checkpoint brings none.
        end_token_ids: ids that end an answer.
        block_length: the block length it was trained for, when known.
        attention: attention kinds it was trained for ("bidirectional", "block_causal"), when known.
        family: the adapter that loaded it, None for a checkpoint that transformers knows by itself.
        source: what it was asked for by, to load it again.
    """

    name: str
    revision: str | None
    denoiser: HuggingFaceDenoiser
    tokenizer: Any | None
    end_token_ids: tuple[int, ...]
    block_length: int | None
    attention: tuple[str, ...]
    dtype: str
    family: str | None = None
    source: str = ""

    @property
    def mask_token_id(self) -> int:
        return self.denoiser.mask_token_id

    def text(self, tokens: list[int]) -> str | None:
        return None if self.tokenizer is None else self.tokenizer.decode(tokens)

    def chat_prompt(self, text: str) -> list[int]:
        """Token ids of ``text`` as a user's turn, in the checkpoint's own chat template, up to where the answer begins.

        Raises:
            CheckpointError: no tokenizer, or one without a chat template (a base model).
        """
        if self.tokenizer is None or not getattr(self.tokenizer, "chat_template", None):
            raise CheckpointError(f"checkpoint {self.name} brings no chat template; give the prompt as it is")
        return chat_ids(self.tokenizer, text)


def check_attention(checkpoint: Checkpoint, cache: str) -> None:
    """Refuse a cache mode whose attention the checkpoint was not trained for.

    Raises:
        CheckpointError: the checkpoint states its attention, and it is another one.
    """
    needed = "block_causal" if cache == "block_causal" else "bidirectional"
    if checkpoint.attention and needed not in checkpoint.attention:
        fitting = "none, prefix or dual" if needed == "block_causal" else "block_causal"
        raise CheckpointError(
            f"cache {cache!r} needs {needed} attention, but {checkpoint.name} was trained for "
            f"{', '.join(checkpoint.attention)}; leave --cache out, or give --cache {fitting}"
        )


def check_cuda_graphs(device: str, cuda_graphs: bool) -> None:
    """Refuse CUDA graphs on other devices, where they would change nothing without a word.

    Raises:
        CheckpointError: ``cuda_graphs`` for a device of another kind.
    """
    if cuda_graphs and device.partition(":")[0] != "cuda":
        raise CheckpointError(f"--cuda-graphs needs --device cuda, got --device {device}")


def _settle_threads(denoiser: HuggingFaceDenoiser) -> None:
    """Run a small model on a CPU in one thread, unless ``OMP_NUM_THREADS`` says otherwise.

    A forward of a few milliseconds spends more on waking a thread pool than it gains, and ten times more where another
    process wants the same cores.
    """
    if denoiser.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        parameters = sum(p.numel() for p in denoiser.model.parameters())
        if parameters < _ONE_THREAD_BELOW:
            torch.set_num_threads(1)


def load_checkpoint(
    source: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    mask_token_id: int | None = None,
    end_token_ids: tuple[int, ...] | None = None,
    revision: str | None = None,
    compiled: bool = False,
    cuda_graphs: bool = False,
) -> Checkpoint:
    """Load a model for decoding.

    Args:
        source: ``bundled``, a local folder in Hugging Face layout, or a hub id.
        dtype: ``float32``, ``bfloat16`` or ``float16``; exactness is a promise in float32 only.
        device: a torch device.
        mask_token_id: overrides what the checkpoint says (``draftgraph.json``, then its tokenizer).
        end_token_ids: overrides likewise (``draftgraph.json``, then tokenizer and configuration).
        revision: branch, tag or commit of a hub model; None is its main branch. Which commit that was stands in the
            checkpoint's own ``revision``.
        compiled: run step forwards through ``torch.compile``; the first ones then take up to minutes.
        cuda_graphs: replay step forwards from CUDA graphs; for CUDA devices only.

    Raises:
        CheckpointError: nothing there, a truncated or foreign weight file, weights that do not fit the configuration,
            a family that no adapter covers, no mask token known or another one than the checkpoint's family has, a
            model that ignores its attention mask, an unknown dtype, a device that is not there, CUDA graphs on
            another device, a revision of something that is not on the hub, or a shape of ``calibrate.models.shapes``.

    >>> checkpoint = load_checkpoint("bundled")
    >>> checkpoint.name, checkpoint.dtype, checkpoint.tokenizer is not None
    ('bundled', 'float32', True)
    """
    check_cuda_graphs(device, cuda_graphs)
    folder = MODEL_DIR if source == BUNDLED else Path(source).expanduser()
    is_folder = source != BUNDLED and folder.is_dir()
    where = str(folder) if folder.exists() else str(source)
    looks_local = source == BUNDLED or str(source).startswith((".", "/", "~")) or str(source).count("/") > 1
    if looks_local and not (folder / "config.json").is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected a folder with config.json and *.safetensors")
    if str(source).endswith("-shaped") and "/" not in str(source) and not is_folder:
        raise CheckpointError(  # on the hub it would be looked for in vain, for half a minute
            f"{source} is the name of a shape, whose random weights only `latency` and `memory` take; expected "
            "'bundled', a local folder or a hub id"
        )
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    if revision is not None and (source == BUNDLED or is_folder):
        raise CheckpointError(
            f"revision {revision!r} of {source} was asked for, but only models on the hub have revisions; leave it out"
        )
    hub: dict[str, Any] = {} if revision is None else {"revision": revision}
    _check_device(device)
    facts = read_facts(folder)
    try:
        stated, _ = PretrainedConfig.get_config_dict(where, **hub)  # reads config.json, runs nothing
        family = family_of(stated)
        if family is not None and not folder.is_dir():
            # Neither pickles nor the repository's code: what is not fetched cannot run.
            fetched = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
            folder = Path(snapshot_download(where, allow_patterns=fetched, **hub))
        if family is not None:
            config: Any = None
            model = load_native(family, folder, stated, DTYPES[dtype])
        else:
            config = AutoConfig.from_pretrained(where, trust_remote_code=False, **hub)
            model, report = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=DTYPES[dtype],
                attn_implementation="sdpa",
                output_loading_info=True,
                trust_remote_code=False,  # refused at once; left open, a terminal would be asked
                **hub,
            )
    except Exception as error:  # transformers passes on whatever its parts raise, each with a class of its own
        raise CheckpointError(f"checkpoint {source} cannot be loaded: {error}") from error
    if family is None and (missing := sorted(report["missing_keys"])):
        raise CheckpointError(
            f"checkpoint {source} lacks {len(missing)} weights of {type(model).__name__}, for example {missing[0]!r}; "
            "the missing ones would be random"
        )
    if family is None and (foreign := sorted(report["unexpected_keys"])):
        raise CheckpointError(
            f"checkpoint {source} holds {len(foreign)} weights that {type(model).__name__} of its config.json has no "
            f"place for, for example {foreign[0]!r}; they would be dropped without a word"
        )
    tokenizer = _tokenizer(where, None, **hub) if family is None else _tokenizer(str(folder), family)
    mask = mask_token(source, mask_token_id, facts, stated, tokenizer, family)
    ends = end_token_ids if end_token_ids is not None else end_tokens(facts, tokenizer, stated, family)
    shift = facts.get("logits_shift", family.logits_shift if family is not None else 0)
    try:
        denoiser = HuggingFaceDenoiser(
            model.to(device),
            mask,
            shift,
            cuda_graphs=cuda_graphs,
            compile_backend="inductor" if compiled else None,
        )
        probe_mask(denoiser)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {source}: {error}") from error
    commit = folder.name if family is not None and not Path(source).expanduser().is_dir() else None
    _settle_threads(denoiser)
    name = Path(source).expanduser().resolve().name if is_folder else str(source)
    return Checkpoint(
        name=name,
        source=str(source),
        revision=commit or getattr(config, "_commit_hash", None) or folder_digest(folder),
        denoiser=denoiser,
        tokenizer=tokenizer,
        end_token_ids=tuple(ends),
        block_length=facts.get("block_length", trained_block_length(family, stated, name)),
        attention=tuple(facts.get("attention", family.attention if family is not None else ())),
        dtype=dtype,
        family=family.name if family is not None else None,
    )


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"device {device!r} is not there ({reason}); use --device cpu") from error
    if kind == "meta":
        raise CheckpointError("device 'meta' holds no numbers; use --device cpu")


def _tokenizer(where: str, family: FamilySpec | None, **hub: Any) -> Any | None:
    # Some tokenizer classes make an empty tokenizer, with ids of its own, out of a folder that has no files for one.
    if family is not None and not any((Path(where) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False, **hub)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a checkpoint without tokenizer still decodes prompts given as token ids
    if family is None or family.tokenizer is None:
        return None
    try:  # the files are a native tokenizer's, only the class they name is remote code
        return getattr(transformers, family.tokenizer).from_pretrained(where)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
