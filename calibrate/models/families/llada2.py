"""LLaDA2.x mini and flash: mixture of experts, block-causal with blocks of 32, logits not shifted.

``Glm4MoeForCausalLM`` computes the same function: normed queries and keys, rotary positions on half of a head, sigmoid
routing with a correction bias among the best groups, weights that sum to the scaling factor, one shared expert, a few
dense layers first. Only queries, keys and values come fused, and experts one by one.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from calibrate.models.families.spec import AdapterError, FamilySpec

_FUSED = re.compile(r"(model\.layers\.\d+\.self_attn\.)query_key_value\.weight")
_EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")


def unfuse(weights: dict[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """Split queries, keys and values (rows in this order), and stack the experts of each layer.

    Raises:
        AdapterError: a fused weight of another height than the config's heads make, or a missing expert.
    """
    heads = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
    rows = [count * config.head_dim for count in heads]
    experts: dict[str, dict[tuple[int, str], torch.Tensor]] = {}
    result: dict[str, torch.Tensor] = {}
    for name in list(weights):
        weight = weights.pop(name)  # so that no layer is held twice
        if match := _FUSED.fullmatch(name):
            if weight.shape[0] != sum(rows):
                raise AdapterError(f"{name} has {weight.shape[0]} rows, expected {sum(rows)} ({heads} heads)")
            for letter, part in zip("qkv", weight.split(rows), strict=True):
                result[f"{match[1]}{letter}_proj.weight"] = part
        elif match := _EXPERT.fullmatch(name):
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = weight
        else:
            result[name] = weight
    for prefix, parts in experts.items():
        numbers = range(config.n_routed_experts)
        if absent := [f"{prefix}{e}.{kind}_proj" for e in numbers for kind in _KINDS if (e, kind) not in parts]:
            raise AdapterError(f"{len(absent)} expert weights are missing, for example {absent[0]}.weight")
        gate_up = [torch.cat([parts.pop((e, "gate")), parts.pop((e, "up"))]) for e in numbers]
        result[f"{prefix}gate_up_proj"] = torch.stack(gate_up)
        result[f"{prefix}down_proj"] = torch.stack([parts.pop((e, "down")) for e in numbers])
        if parts:
            raise AdapterError(f"{prefix}* holds more than the {len(numbers)} experts of the config")
    return result


_KINDS = ("gate", "up", "down")

LLADA2 = FamilySpec(
    name="LLaDA2",
    model_types=("llada2_moe",),
    native="Glm4MoeForCausalLM",
    fields={"n_routed_experts": ("num_experts",), "n_shared_experts": ("num_shared_experts",)},
    fixed={"attention_bias": False, "norm_topk_prob": True, "num_mtp_layers": 0},
    demands={
        "hidden_act": "silu",
        "use_qk_norm": True,
        "use_qkv_bias": False,
        "use_bias": False,
        "norm_head": False,
        "norm_topk_prob": True,
        "score_function": "sigmoid",
        "use_sliding_window": False,
    },
    renames=(
        (r"model\.word_embeddings\.weight", "model.embed_tokens.weight"),
        (r"model\.layers\.(\d+)\.attention\.dense\.weight", r"model.layers.\1.self_attn.o_proj.weight"),
        (r"model\.layers\.(\d+)\.attention\.query_layernorm\.weight", r"model.layers.\1.self_attn.q_norm.weight"),
        (r"model\.layers\.(\d+)\.attention\.key_layernorm\.weight", r"model.layers.\1.self_attn.k_norm.weight"),
        (
            r"model\.layers\.(\d+)\.attention\.query_key_value\.weight",
            r"model.layers.\1.self_attn.query_key_value.weight",
        ),
        (r"model\.layers\.(\d+)\.mlp\.gate\.expert_bias", r"model.layers.\1.mlp.gate.e_score_correction_bias"),
    ),
    convert=unfuse,
    keep_float32=("e_score_correction_bias", "mlp.gate.weight"),
    mask_token="<|mask|>",
    mask_token_id=156895,
    end_token_ids=(156892,),  # <|endoftext|>
    attention=("block_causal",),
    block_length=32,
)
