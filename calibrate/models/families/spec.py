"""What a family of checkpoints is, as data: everything a loader must know, nothing it must run.

A family is a set of checkpoints that share a ``model_type`` which transformers does not know, or knows only through
code that the checkpoint brings along. No such code is ever run: the weights are loaded into the transformers class
that computes the same function, under that class's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

#: Native config field -> the family's keys for it, the first one that config.json states wins.
Fields = Mapping[str, tuple[str, ...]]
#: Changes the weights that renaming cannot (a fused projection, one tensor per expert); gets native names.
Convert = Callable[[dict[str, torch.Tensor], Any], dict[str, torch.Tensor]]


class AdapterError(ValueError):
    """A checkpoint that its family's adapter cannot load."""


@dataclass(frozen=True)
class FamilySpec:
    """One family.

    Attributes:
        name: how documentation and errors call it.
        model_types: values of ``model_type`` in config.json, compared without case.
        native: the transformers class that computes the same function.
        fields: native config field -> family config keys; a field that is left out keeps its name.
        fixed: native config fields with a value that the family does not state.
        demands: family config keys -> the one value under which ``native`` computes the same; a key that config.json
            lacks is taken to have it.
        renames: (pattern, replacement) pairs for weight names, tried in order, the first full match wins; a name that
            no pattern matches keeps its name.
        convert: what renaming cannot do, or None.
        keep_float32: native name endings that may stand in another dtype than the rest.
        mask_token: the mask token's text, looked up in the checkpoint's tokenizer.
        mask_token_id: its id in the published checkpoints, where neither config nor tokenizer says.
        end_token_ids: ids that end an answer in the published checkpoints.
        logits_shift: 1 when row r predicts the token after it.
        attention: the attention kinds it was trained for.
        block_length: the block length it was trained for, None where any will do.
        block_length_keys: config.json's keys for it, where a checkpoint may differ.
        block_length_in_name: a pattern whose group is the block length in a checkpoint's name, or None.
        tokenizer: transformers class for its tokenizer files, where they name one that only remote code has.
    """

    name: str
    model_types: tuple[str, ...]
    native: str
    mask_token: str
    mask_token_id: int | None
    end_token_ids: tuple[int, ...]
    attention: tuple[str, ...]
    fields: Fields = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    demands: Mapping[str, Any] = field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()
    convert: Convert | None = None
    keep_float32: tuple[str, ...] = ()
    logits_shift: int = 0
    block_length: int | None = None
    block_length_keys: tuple[str, ...] = ("block_length", "block_size")
    block_length_in_name: str | None = None
    tokenizer: str | None = None
