"""Loading a family's checkpoint into the transformers class that computes the same: what a spec says, done.

Weights are read from safetensors only (a pickle may run code), renamed, converted, compared name by name and shape by
shape with what the class has, and cast to one dtype. Nothing is left random and nothing is dropped without a word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from calibrate.models.families.spec import AdapterError, FamilySpec
from calibrate.models.folder import WeightFilesError, weight_files
from verify.runtimes.transformers_model import check_vocabulary

#: Fields that native configs take though they are not among their declared ones.
_EXTRA_FIELDS = {"head_dim", "rope_theta", "rope_scaling", "partial_rotary_factor"}
#: Facts about the checkpoint's own software; they say nothing about the function.
_DROPPED_FIELDS = {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "attn_implementation"}
#: Buffers that some versions saved; the native class computes them.
_COMPUTED = re.compile(r".*rotary_emb\.inv_freq")
_FLOATS = {"F64", "F32", "F16", "BF16"}


def native_config(spec: FamilySpec, config: Mapping[str, Any]) -> Any:
    """The native configuration of a family's config.json.

    Raises:
        AdapterError: a key that is missing, a value under which the native class would compute something else, a
            quantised checkpoint, or a vocabulary beyond the trace's type.
    """
    if config.get("quantization_config"):
        raise AdapterError(f"{spec.name} checkpoints are loaded unquantised only; this one has a quantization_config")
    for key, value in spec.demands.items():
        if config.get(key, value) not in (value, None):
            raise AdapterError(
                f"config.json has {key}={config[key]!r}; {spec.native} computes the same as {spec.name} only with "
                f"{key}={value!r}"
            )
    native = getattr(transformers, spec.native, None)
    if native is None:
        raise AdapterError(f"{spec.name} needs {spec.native}; transformers {transformers.__version__} does not have it")
    known = {item.name for item in dataclasses.fields(native.config_class)} | _EXTRA_FIELDS
    kept = known - _DROPPED_FIELDS - set(spec.fields)
    arguments = {k: v for k, v in config.items() if k in kept and (v is not None or k not in _EXTRA_FIELDS)}
    for name, keys in spec.fields.items():
        stated = [config[key] for key in keys if config.get(key) is not None]
        if not stated:
            raise AdapterError(f"config.json of a {spec.name} checkpoint lacks {' or '.join(keys)}")
        arguments[name] = stated[0]
    try:
        result = native.config_class(**{**arguments, **spec.fixed})
        check_vocabulary(int(result.vocab_size))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise AdapterError(f"config.json does not fit {spec.native}: {error}") from error
    return result


def load_native(spec: FamilySpec, folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The native model of a family's checkpoint on the CPU, with SDPA attention.

    Raises:
        AdapterError: as in :func:`native_config`; no or truncated weight files, weights that do not fit the class,
            more than one floating dtype among them.
    """
    target = native_config(spec, config)
    native = getattr(transformers, spec.native)
    weights = read_weights(spec, folder)
    if spec.convert is not None:
        weights = spec.convert(weights, target)
    with torch.device("meta"):
        expected = {name: tuple(weight.shape) for name, weight in native(target).state_dict().items()}
    if target.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
        weights.pop("lm_head.weight", None)
    _compare(spec, {name: tuple(weight.shape) for name, weight in weights.items()}, expected)
    # A new config: building the comparison above may have written into it.
    model, report = native.from_pretrained(
        None,
        config=native_config(spec, config),
        state_dict=weights,
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise AdapterError(f"{spec.native} left {len(missing)} weights unset, for example {missing[0]}")
    return model


def read_weights(spec: FamilySpec, folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder of safetensors, under native names as far as renaming leads.

    Raises:
        AdapterError: no weight files, or unclear ones (``calibrate.models.folder``), a truncated one, two weights for
            one name, a quantised weight, or two floating dtypes.
    """
    weights: dict[str, torch.Tensor] = {}
    dtypes: dict[str, str] = {}
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118  (a safe_open handle is not a mapping)
                    native = rename(spec, name)
                    if native is None:
                        continue
                    if native in weights:
                        raise AdapterError(f"{path.name} holds {name}, and {native} was already loaded")
                    kind = shard.get_slice(name).get_dtype()
                    if kind not in _FLOATS:
                        raise AdapterError(f"{path.name}: {name} is {kind}; only unquantised weights can be loaded")
                    if not native.endswith(spec.keep_float32):
                        dtypes.setdefault(kind, name)
                    weights[native] = shard.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise AdapterError(f"weight file {path.name} cannot be read ({error}); fetch it again") from error
    if len(dtypes) > 1:
        listed = ", ".join(f"{name} is {kind}" for kind, name in sorted(dtypes.items()))
        raise AdapterError(f"the weights mix dtypes ({listed}); save the checkpoint in one")
    return weights


def rename(spec: FamilySpec, name: str) -> str | None:
    """The native name of a family's weight; None for a buffer that the native class computes."""
    if _COMPUTED.fullmatch(name):
        return None
    for pattern, replacement in spec.renames:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


def _shards(folder: Path) -> list[Path]:
    try:
        _, paths = weight_files(folder)
    except WeightFilesError as error:
        raise AdapterError(str(error)) from error
    if foreign := [path.name for path in paths if path.suffix != ".safetensors"]:
        raise AdapterError(
            f"{folder} has {foreign[0]} and no model.safetensors; other weight formats can run code and are not read"
        )
    return paths


def _compare(spec: FamilySpec, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    absent, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if absent or foreign:
        parts = []
        if absent:
            parts.append(f"{len(absent)} weights of {spec.native} are missing, for example {absent[0]}")
        if foreign:
            parts.append(f"{len(foreign)} weights have no place in it, for example {foreign[0]}")
        raise AdapterError(f"the weights do not fit: {'; '.join(parts)}. Is this a {spec.name} checkpoint?")
    for name, shape in expected.items():
        if found[name] != shape:
            raise AdapterError(f"{name} has shape {found[name]}, but config.json makes it {shape}")
