"""Hugging Face causal language models as denoisers, through transformers' own classes.

A model class of transformers becomes bidirectional, block-causal or packed by the 4-D attention mask it is handed:
with SDPA it uses a boolean mask as it is, takes explicit position ids, and concatenates a cache in front of the new
keys. So no modelling code is copied here.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class FrozenContext:
    """Keys and values of ``C`` rows, per layer [1, heads, C, head width]; ``len()`` is ``C``."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.layers = layers

    def __len__(self) -> int:
        return self.layers[0][0].shape[-2] if self.layers else 0


class _FrozenLayer(DynamicLayer):
    """A cache layer that puts frozen keys before the new ones and forgets the new ones, unless asked to keep some."""

    def __init__(
        self, keys: torch.Tensor | None, values: torch.Tensor | None, freeze_rows: torch.Tensor | None
    ) -> None:
        super().__init__()
        self.frozen_keys, self.frozen_values, self.freeze_rows = keys, values, freeze_rows
        self.new_context: tuple[torch.Tensor, torch.Tensor] | None = None
        self.is_initialized = True
        if keys is not None:
            self.keys, self.values = keys, values

    def get_seq_length(self) -> int:
        return 0 if self.frozen_keys is None else self.frozen_keys.shape[-2]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keep_keys = keep_values = None
        if self.freeze_rows is not None:
            keep_keys = key_states.index_select(-2, self.freeze_rows)
            keep_values = value_states.index_select(-2, self.freeze_rows)
        if self.frozen_keys is None or self.frozen_values is None:
            if keep_keys is not None and keep_values is not None:
                self.new_context = keep_keys, keep_values
            return key_states, value_states
        if keep_keys is not None and keep_values is not None:
            self.new_context = (
                torch.cat([self.frozen_keys, keep_keys], dim=-2),
                torch.cat([self.frozen_values, keep_values], dim=-2),
            )
        batch = (key_states.shape[0], -1, -1, -1)
        return (
            torch.cat([self.frozen_keys.expand(batch), key_states], dim=-2),
            torch.cat([self.frozen_values.expand(batch), value_states], dim=-2),
        )


class HuggingFaceDenoiser:
    """A transformers model behind the :class:`verify.denoiser.Denoiser` protocol.

    Args:
        model: a ``*ForCausalLM`` with SDPA or eager attention, in evaluation mode.
        mask_token_id: id of the mask token.

    Raises:
        ValueError: the mask id is outside the vocabulary, or the attention implementation would not use a 4-D mask.
    """

    def __init__(self, model: PreTrainedModel, mask_token_id: int) -> None:
        vocabulary = int(model.config.vocab_size)
        if not 0 <= mask_token_id < vocabulary:
            raise ValueError(f"mask token id {mask_token_id} is outside the model's vocabulary of {vocabulary}")
        implementation = model.config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise ValueError(
                f"attention implementation {implementation!r} ignores a 4-D mask; load with attn_implementation='sdpa'"
            )
        self.model = model.eval()
        self.mask_token_id = mask_token_id
        self.vocabulary_size = vocabulary
        self.device = next(model.parameters()).device
        self._layers = int(model.config.num_hidden_layers)
        self._additive = implementation == "eager"

    @torch.inference_mode()
    def __call__(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        visibility: torch.Tensor,
        context: FrozenContext | None = None,
        logit_rows: torch.Tensor | None = None,
        freeze_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, FrozenContext | None]:
        """See :meth:`verify.denoiser.Denoiser.__call__`."""
        mask = visibility[:, None].expand(tokens.shape[0], 1, -1, -1)
        if self._additive:
            zero = torch.zeros((), dtype=self.model.dtype, device=self.device)
            mask = torch.where(mask, zero, torch.finfo(self.model.dtype).min)
        layers = None
        if context is not None or freeze_rows is not None:
            pairs = context.layers if context is not None and len(context) else [(None, None)] * self._layers
            layers = [_FrozenLayer(keys, values, freeze_rows) for keys, values in pairs]
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=Cache(layers=layers) if layers is not None else None,
            use_cache=layers is not None,
            logits_to_keep=logit_rows if logit_rows is not None else 0,
        )
        if freeze_rows is None or layers is None:
            return output.logits, None
        return output.logits, FrozenContext([layer.new_context for layer in layers if layer.new_context is not None])
