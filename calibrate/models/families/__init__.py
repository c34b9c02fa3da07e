"""Families of checkpoints that transformers' own classes compute, though they ship code of their own.

One module per family holds its :class:`~calibrate.models.families.spec.FamilySpec`; ``loader`` does what the specs say.
docs/models.md tells how to add a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calibrate.models.families.dream import DREAM
from calibrate.models.families.llada import LLADA
from calibrate.models.families.llada2 import LLADA2
from calibrate.models.families.qwen3_diffusion import QWEN2_DIFFUSION, QWEN3_DIFFUSION
from calibrate.models.families.sdar import SDAR
from calibrate.models.families.spec import AdapterError, FamilySpec

FAMILIES: tuple[FamilySpec, ...] = (LLADA, DREAM, SDAR, LLADA2, QWEN3_DIFFUSION, QWEN2_DIFFUSION)

#: ``architectures`` or ``model_type`` entries that look like a family above but belong to another; checked first.
REFUSED: Mapping[str, str] = {
    "LLaDAMoEModelLM": "LLaDA-MoE has another architecture than LLaDA and no native class was verified for it",
    "lladamoe": "LLaDA-MoE has another architecture than LLaDA and no native class was verified for it",
    "sdar_moe": "SDAR with experts was not verified; its dense sizes are supported",
    "SDARMoeForCausalLM": "SDAR with experts was not verified; its dense sizes are supported",
}

__all__ = ["FAMILIES", "REFUSED", "AdapterError", "FamilySpec", "family_of"]


def family_of(config: Mapping[str, Any]) -> FamilySpec | None:
    """The family whose ``model_type`` a config.json has, or None when transformers should know it by itself.

    Raises:
        AdapterError: a checkpoint that is known not to fit.
    """
    model_type = str(config.get("model_type", ""))
    for name in [*(config.get("architectures") or ()), model_type]:
        if name in REFUSED:
            raise AdapterError(f"{name} is not supported: {REFUSED[name]}")
    for family in FAMILIES:
        if model_type.lower() in family.model_types:
            return family
    return None
