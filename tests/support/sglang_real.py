"""SGLang's own model, paged cache, attention and algorithms on a CPU, around a tiny checkpoint of random weights.

What stands in for something else: empty modules for ``torchvision`` and ``sgl_kernel``, which are imported and not
used; and the model runner, of which only ``forward`` is needed: it plans the attention and calls the model, as SGLang's
eager runner does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from tests.support.sglang_server import fields_of

VOCABULARY, MASK = 48, 40


class _Anything(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Absent(metaclass=_Anything):
    """Whatever is taken from a module that is not there: it may be named, never called."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        raise RuntimeError("this stands in for a package that is not installed")


class _Empty(ModuleType):
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        known = name.partition(".")[0] in ("torchvision", "sgl_kernel")
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


@cache
def start() -> None:
    """Make one process SGLang's whole world: its settings published, its groups built, on the CPU."""
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    sys.meta_path.append(_Finder())
    from sglang.srt.distributed.parallel_state import init_distributed_environment, initialize_model_parallel
    from sglang.srt.runtime_context import get_context, get_parallel

    get_context().override_server_args(device="cpu", attention_backend="torch_native").install()
    ranks = ("tp_rank", "pp_rank", "attn_tp_rank", "attn_dp_rank", "attn_cp_rank", "moe_dp_rank", "moe_ep_rank")
    get_parallel().override_permanently(**dict.fromkeys((*ranks, "moe_tp_rank", "attn_dcp_rank"), 0))
    meeting = f"file://{tempfile.mkdtemp()}/meeting"
    init_distributed_environment(world_size=1, rank=0, local_rank=0, distributed_init_method=meeting, backend="gloo")
    initialize_model_parallel()


@cache
def model(seed: int) -> Any:
    """SGLang's ``SDARForCausalLM`` of two layers with random weights, in float32."""
    start()
    from sglang.srt.models.sdar import SDARForCausalLM
    from transformers import PretrainedConfig

    config = PretrainedConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=512,
        tie_word_embeddings=False, attention_bias=False, architectures=["SDARForCausalLM"],
    )  # fmt: skip
    built = SDARForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.7 if "lm_head" in name else 0.25))
        built.lm_head.weight[MASK] = 0.0  # the mask token is hardly ever the likeliest
    return built.eval()


class RealRunner:
    """What an algorithm uses of SGLang's ``ModelRunner``, with SGLang's own parts in it."""

    device = "cpu"
    is_hybrid_swa = False
    is_draft_worker = False

    def __init__(self, *, rows: int = 48, pages: int = 400, page_size: int = 4, seed: int = 0) -> None:
        start()
        from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
        from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
        from sglang.srt.mem_cache.kv_index_translator import KVIndexTranslator
        from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, ReqToTokenPool

        self.model = model(seed)
        size = pages * page_size
        self.token_to_kv_pool = MHATokenToKVPool(
            size=size, page_size=page_size, dtype=torch.float32, head_num=2, head_dim=8, layer_num=2, device="cpu",
            enable_memory_saver=False,
        )  # fmt: skip
        self.token_to_kv_pool_allocator = PagedTokenToKVPoolAllocator(
            size, page_size, torch.float32, "cpu", self.token_to_kv_pool, need_sort=False
        )
        self.req_to_token_pool = ReqToTokenPool(rows, 256, "cpu", enable_memory_saver=False)
        self.attn_backend = TorchNativeAttnBackend(self)
        self.kv_index_translator = KVIndexTranslator(
            req_to_token=self.req_to_token_pool.req_to_token,
            token_to_kv_pool_allocator=self.token_to_kv_pool_allocator, token_to_kv_pool=self.token_to_kv_pool,
            page_size=page_size, device="cpu",
        )  # fmt: skip
        self.max_running_requests = rows
        self.model_config = SimpleNamespace(hf_config=self.model.config)
        self.forwards = 0

    def forward(self, batch: Any, pp_proxy_tensors: Any = None) -> Any:
        from sglang.srt.model_executor.forward_context import ForwardContext, forward_context

        self.forwards += 1
        with torch.no_grad(), forward_context(ForwardContext(attn_backend=self.attn_backend), forward_batch=batch):
            self.attn_backend.init_forward_metadata(batch)
            out = self.model.forward(batch.input_ids, batch.positions, batch)
        return SimpleNamespace(logits_output=out, can_run_graph=False)


def make_batch(runner: RealRunner, size: int, *parts: Any) -> Any:
    """A ``ForwardBatch`` of SGLang, planned and bound as its own constructor does it."""
    from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch, ForwardMode

    batch = ForwardBatch(
        forward_mode=ForwardMode.DLLM_EXTEND, capture_hidden_mode=CaptureHiddenMode.NULL, **fields_of(size, *parts)
    )
    runner.kv_index_translator.own_plan(batch).bind(batch, runner.kv_index_translator)
    batch._init_num_token_non_padded(device="cpu", is_draft_worker=False)
    return batch
