"""Causal language models of transformers as denoisers, through that library's own classes.

A model class of transformers becomes bidirectional, block-causal or packed by the 4-D attention mask it is handed:
with SDPA it uses a boolean mask as it is, takes explicit position ids, and concatenates a cache in front of the new
keys. So no modelling code is copied here, and transformers itself is imported on first use only.

**Shifted logits.** A model that was made from an autoregressive one (Dream) predicts in row r the token *after* row r.
The runtime never sees this: a row's logits are taken from the row before it, which is the one row at the position
before its own that it may look at. That row is found from positions and attention_mask alone, so a shift cannot cross
from one packed block into another; where it is a cached row, its last hidden state was kept with the cached keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Traces and ranks hold token ids as int32; a vocabulary beyond it would wrap around without a word.
MAX_VOCABULARY = 2**31 - 1


@dataclass(frozen=True, eq=False)
class CachedEdge:
    """What a shifted model must keep of cached rows: the rows whose successor is not cached with them.

    Only they can ever be asked for (the row before the block; the last row of all), so one or two rows are kept. Of a
    batch all rows are, as its sequences may differ in what is cached and what is padding.

    Attributes:
        positions: int64 [1 or B, C], position ids of all cached rows.
        columns: int64 [E], which of the ``C`` rows are kept.
        hidden: [1 or B, E, width], their last hidden states.
    """

    positions: torch.Tensor
    columns: torch.Tensor
    hidden: torch.Tensor


class KeyValueCache:
    """Keys and values of ``C`` rows, per layer [1, heads, C, head width]; ``len()`` is ``C``."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]], edge: CachedEdge | None = None) -> None:
        self.layers = layers
        self.edge = edge

    def __len__(self) -> int:
        return self.layers[0][0].shape[-2] if self.layers else 0

    def first(self) -> KeyValueCache:
        """The rows of the first sequence of a batch."""
        edge = self.edge
        if edge is not None:
            edge = CachedEdge(edge.positions[:1], edge.columns, edge.hidden[:1])
        return KeyValueCache([(keys[:1], values[:1]) for keys, values in self.layers], edge)

    def last(self, count: int) -> KeyValueCache:
        """The last ``count`` rows alone; of models without a shift."""
        return KeyValueCache([(keys[..., -count:, :], values[..., -count:, :]) for keys, values in self.layers])


@cache
def _cache_classes() -> tuple[Any, Any]:
    """``transformers.Cache``, and a layer for it; made on first use, as the layer derives from a class of theirs."""
    from transformers import Cache
    from transformers.cache_utils import DynamicLayer

    class CachingLayer(DynamicLayer):
        """Puts cached keys before the new ones, and forgets the new ones unless asked to keep some."""

        def __init__(
            self, keys: torch.Tensor | None, values: torch.Tensor | None, cache_rows: torch.Tensor | None
        ) -> None:
            super().__init__()
            self.cached_keys, self.cached_values, self.cache_rows = keys, values, cache_rows
            self.kept: tuple[torch.Tensor, torch.Tensor] | None = None
            self.is_initialized = True
            if keys is not None:
                self.keys, self.values = keys, values

        def get_seq_length(self) -> int:
            return 0 if self.cached_keys is None else self.cached_keys.shape[-2]

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            keep_keys = keep_values = None
            if self.cache_rows is not None:
                keep_keys = key_states.index_select(-2, self.cache_rows)
                keep_values = value_states.index_select(-2, self.cache_rows)
            if self.cached_keys is None or self.cached_values is None:
                if keep_keys is not None and keep_values is not None:
                    self.kept = keep_keys, keep_values
                return key_states, value_states
            batch = (key_states.shape[0], -1, -1, -1)
            if keep_keys is not None and keep_values is not None:
                self.kept = (
                    torch.cat([self.cached_keys.expand(batch), keep_keys], dim=-2),
                    torch.cat([self.cached_values.expand(batch), keep_values], dim=-2),
                )
            return (
                torch.cat([self.cached_keys.expand(batch), key_states], dim=-2),
                torch.cat([self.cached_values.expand(batch), value_states], dim=-2),
            )

    return Cache, CachingLayer


class TransformersDenoiser:
    """A transformers model behind the :class:`verify.denoiser.Denoiser` protocol, one call per sequence.

    ``calibrate.models.hugging_face`` adds static buffers for many sequences to it.

    Args:
        model: a ``*ForCausalLM`` with SDPA or eager attention; it is put into evaluation mode.
        mask_token_id: id of the mask token.
        logits_shift: 0 when row r predicts the token of row r, 1 when it predicts the one after it.

    Raises:
        ValueError: the mask id is outside the vocabulary, the vocabulary is beyond int32, parameters of several
            floating dtypes, an unknown shift, or an attention implementation that would not use a 4-D mask.
    """

    def __init__(self, model: PreTrainedModel, mask_token_id: int, logits_shift: int = 0) -> None:
        vocabulary = int(model.config.vocab_size)
        check_vocabulary(vocabulary)
        if not 0 <= mask_token_id < vocabulary:
            raise ValueError(f"mask token id {mask_token_id} is outside the model's vocabulary of {vocabulary}")
        implementation = model.config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise ValueError(
                f"attention implementation {implementation!r} ignores a 4-D mask; load with attn_implementation='sdpa'"
            )
        dtypes = sorted({str(weight.dtype) for weight in model.parameters() if weight.is_floating_point()})
        if len(dtypes) > 1:
            raise ValueError(f"the model mixes {' and '.join(dtypes)}; load all its weights in one dtype")
        if logits_shift not in (0, 1):
            raise ValueError(f"logits_shift is {logits_shift!r}, expected 0 or 1")
        self.model = model.eval()
        self.mask_token_id = mask_token_id
        self.logits_shift = logits_shift
        self.vocabulary_size = vocabulary
        self.device = next(model.parameters()).device
        self._layers = int(model.config.num_hidden_layers)
        self._additive = implementation == "eager"

    @property
    def offers_copies(self) -> bool:
        """See :func:`verify.denoiser.offers_copies`; a shifted model keeps one hidden state, a copy needs another."""
        return self.logits_shift == 0

    @torch.inference_mode()
    def __call__(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attention_mask: torch.Tensor,
        cache: KeyValueCache | None = None,
        logit_rows: torch.Tensor | None = None,
        cache_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, KeyValueCache | None]:
        """See :meth:`verify.denoiser.Denoiser.__call__`."""
        mask = attention_mask[:, None].expand(tokens.shape[0], 1, -1, -1)
        if self._additive:
            zero = torch.zeros((), dtype=self.model.dtype, device=self.device)
            mask = torch.where(mask, zero, torch.finfo(self.model.dtype).min)
        layers = None
        cache_class, caching_layer = _cache_classes()
        if cache is not None or cache_rows is not None:
            pairs = cache.layers if cache is not None and len(cache) else [(None, None)] * self._layers
            layers = [caching_layer(keys, values, cache_rows) for keys, values in pairs]
        arguments: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache_class(layers=layers) if layers is not None else None,
            "use_cache": layers is not None,
        }
        edge = None
        if self.logits_shift:
            # The head alone is applied to the rows gathered, so the shift costs no more logits than are wanted.
            hidden = self.model.get_decoder()(**arguments).last_hidden_state
            logits = self.model.get_output_embeddings()(
                _rows_before(hidden, positions, attention_mask, logit_rows, cache.edge if cache is not None else None)
            )
            if cache_rows is not None:
                edge = _cached_edge(hidden, positions, cache_rows, cache.edge if cache is not None else None)
        else:
            logits = self.model(**arguments, logits_to_keep=logit_rows if logit_rows is not None else 0).logits
        if cache_rows is None or layers is None:
            return logits, None
        return logits, KeyValueCache([layer.kept for layer in layers if layer.kept is not None], edge)


def check_vocabulary(size: int) -> None:
    """Raise ValueError when token ids of a vocabulary of ``size`` do not fit into the int32 of ranks and traces."""
    if size > MAX_VOCABULARY:
        raise ValueError(f"a vocabulary of {size} is beyond the int32 that traces hold token ids in ({MAX_VOCABULARY})")


def _rows_before(
    hidden: torch.Tensor,
    positions: torch.Tensor,
    attention_mask: torch.Tensor,
    logit_rows: torch.Tensor | None,
    edge: CachedEdge | None,
) -> torch.Tensor:
    """Hidden states [B, K, width] of the row before each wanted row: visible to it, one position before its own.

    A row sees one consistent sequence, so there is at most one such row. A row that has none (position 0) keeps its
    own, as Dream's loop does; a prompt has no empty beginning, so nothing masked ever stands there.
    """
    live = hidden.shape[1]
    rows = torch.arange(live, device=hidden.device) if logit_rows is None else logit_rows
    needed = positions[:, rows, None] - 1
    seen = attention_mask[:, rows]
    cached = seen.shape[-1] - live
    before = seen[..., cached:] & (positions[:, None, :] == needed)
    if edge is not None and len(edge.columns):
        before_edge = seen[..., edge.columns] & (edge.positions[:, None, edge.columns] == needed)
        before = torch.cat([before, before_edge], dim=-1)
        hidden = torch.cat([hidden, edge.hidden.expand(len(hidden), -1, -1)], dim=1)
    source = torch.where(before.any(dim=-1), before.to(torch.uint8).argmax(dim=-1), rows)
    return torch.gather(hidden, 1, source[..., None].expand(-1, -1, hidden.shape[-1]))


def _cached_edge(
    hidden: torch.Tensor, positions: torch.Tensor, cache_rows: torch.Tensor, old: CachedEdge | None
) -> CachedEdge:
    """The edge of a cache that grows by ``cache_rows``; a row that was no edge before never becomes one."""
    new_positions, new_hidden = positions[:, cache_rows], hidden[:, cache_rows]
    columns = torch.arange(len(cache_rows), device=hidden.device)
    if old is not None:
        batch = len(new_positions)
        columns = torch.cat([old.columns, old.positions.shape[1] + columns])
        new_positions = torch.cat([old.positions.expand(batch, -1), new_positions], dim=1)
        new_hidden = torch.cat([old.hidden.expand(batch, -1, -1), new_hidden], dim=1)
    if len(new_positions) > 1:
        return CachedEdge(new_positions, columns, new_hidden)
    is_edge = ~torch.isin(new_positions[0, columns] + 1, new_positions[0])
    return CachedEdge(new_positions, columns[is_edge], new_hidden[:, is_edge])
