"""What other runtimes decide and count otherwise than the loop here, as data that predictions are corrected by.

A graph promises fewer forwards for one rule. The same words mean different rules elsewhere: ``>`` or ``>=``, a softmax
in float32 or in the logits' own dtype, the mask token in it or not. A graph of another rule is still decoded without
loss there, if that runtime verifies by equality, but not in the forwards that were promised. And runtimes count other
forwards: one that stores a finished block, one that looks at a complete block and finds nothing to do.

Each profile names the version it was read from (docs/runtimes.md has them side by side, with what could not be
verified).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from verify.policies.specification import without_sampling

COMPARATORS = (">", ">=")
DTYPES = ("float32", "float64", "logits")


class ProfileError(ValueError):
    """A runtime that is not known, or a decode that it would not make."""


@dataclass(frozen=True)
class RuntimeProfile:
    """How one runtime decides and counts.

    Attributes:
        name: how it is asked for.
        source: what was read: repository, version or commit, file.
        rules: our rules (``draftgraph policies``) that it decodes by: names, or whole specifications.
        caches: our cache modes that it decodes in.
        comparator: how a confidence is compared with the threshold.
        score_dtype: of the softmax: ``float32``, ``float64``, or ``logits`` for the dtype that the model computes in.
        mask_excluded: whether the mask token is left out of the softmax and never the best token.
        tie_rule: what happens to equal confidences and equal tokens.
        added_per_block: forwards that every block costs beside its denoising forwards.
        least_per_block: denoising forwards that a block counts at least.
        adopts_complete: whether our drafts there may complete the block, and one that is accepted saves
            ``added_per_block`` for it: what it computed is what that forward would have stored.
        added_per_prompt: in words, forwards that it counts once for a prompt; they are the same with and without
            drafts, and are not part of :meth:`forwards`.
    """

    name: str
    source: str
    rules: tuple[str, ...]
    caches: tuple[str, ...]
    comparator: str
    score_dtype: str
    mask_excluded: bool
    tie_rule: str
    added_per_block: int
    least_per_block: int
    adopts_complete: bool = False
    added_per_prompt: str = "none"

    def __post_init__(self) -> None:
        if self.comparator not in COMPARATORS or self.score_dtype not in DTYPES:
            raise ProfileError(
                f"profile {self.name}: comparator {self.comparator!r} and score dtype {self.score_dtype!r}, expected "
                f"one of {', '.join(COMPARATORS)} and one of {', '.join(DTYPES)}"
            )
        if self.added_per_block < 0 or self.least_per_block < 1:
            raise ProfileError(
                f"profile {self.name}: {self.added_per_block} forwards added per block and at least "
                f"{self.least_per_block}, expected 0 or more and 1 or more"
            )

    def forwards(self, per_block: np.ndarray, adopted: np.ndarray | bool = False) -> np.ndarray:
        """What it counts for blocks that take ``per_block`` forwards here: int64 of that shape.

        Args:
            per_block: int, any shape.
            adopted: bool, of that shape: blocks whose completing draft was accepted.
        """
        added = np.where(np.asarray(adopted) & self.adopts_complete, 0, self.added_per_block)
        return np.maximum(per_block, self.least_per_block).astype(np.int64) + added

    def check(self, policy: str, cache: str) -> None:
        """Refuse a decode by ``policy`` (a specification) in cache mode ``cache`` that this runtime does not make.

        Raises:
            ProfileError: another rule or cache mode, or drawn tokens, whose noise is another one everywhere.
        """
        rule = without_sampling(policy)
        name = rule.partition(":")[0]
        if name not in self.rules and rule not in self.rules:
            raise ProfileError(
                f"{self.name} does not decode by {policy}: its rule is {' or '.join(self.rules)} (confidence "
                f"{self.comparator} threshold, {self.source}); record with that one, so that what is predicted is what "
                "it will count"
            )
        if rule != policy:
            raise ProfileError(f"{self.name} draws tokens with noise of its own; {policy} predicts nothing of it")
        if cache not in self.caches:
            raise ProfileError(
                f"{self.name} decodes with cache {' or '.join(self.caches)}, the recording is of cache {cache}; record "
                f"with --cache {self.caches[0]}"
            )


_FAST = "github NVlabs/Fast-dLLM @ {}, llada/generate.py, generate_with_dual_cache"
_TOPK = "torch.topk over confidences, which leaves the order of equal ones open; argmax of the logits, likewise"

#: Fast-dLLM as it was first published: the second forward of a block comes before the question whether masks are left.
FAST_DLLM = RuntimeProfile(
    name="fast-dllm",
    source=_FAST.format("24cc59e"),
    rules=("threshold", "static", "quota"),
    caches=("dual", "prefix"),
    comparator=">=",
    score_dtype="float64",
    mask_excluded=False,
    tie_rule=_TOPK,
    added_per_block=0,
    least_per_block=2,
)

_PROFILES = (
    FAST_DLLM,
    RuntimeProfile(
        name="fast-dllm-f6b35ec",
        source=_FAST.format("f6b35ec"),
        rules=("threshold", "static", "quota", "factor_code"),
        caches=("dual", "prefix", "none"),
        comparator=">=",
        score_dtype="float64",
        mask_excluded=False,
        tie_rule=_TOPK,
        added_per_block=0,
        least_per_block=1,
    ),
    RuntimeProfile(
        name="sglang",
        source="sglang 0.5.23, srt/dllm/algorithm/low_confidence.py, LowConfidence, and base.py",
        rules=("dynamic", "static:1"),  # static:1 is a threshold of 1, which no confidence is above
        caches=("block_causal",),
        comparator=">",
        score_dtype="logits",
        mask_excluded=False,
        tie_rule="torch.argmax, which leaves the order of equal ones open; all above the threshold, in any order",
        added_per_block=1,
        least_per_block=1,
        adopts_complete=True,
        added_per_prompt="one for every whole block of the prompt that its prefix cache does not hold",
    ),
    RuntimeProfile(
        name="lmdeploy",
        source="github InternLM/lmdeploy @ 11674bf, lmdeploy/pytorch/strategies/dllm/unmasking.py",
        rules=("threshold", "static"),
        caches=("block_causal",),
        comparator=">=",
        score_dtype="logits",
        mask_excluded=False,
        tie_rule=_TOPK,
        added_per_block=1,
        least_per_block=1,
    ),
    RuntimeProfile(
        name="jetengine",
        source="github Labman42/JetEngine @ 11563d1, jetengine/engine/scheduler.py",
        rules=("dynamic", "static", "quota"),
        caches=("block_causal",),
        comparator=">",
        score_dtype="logits",
        mask_excluded=False,
        tie_rule=_TOPK,
        added_per_block=1,
        least_per_block=1,
        added_per_prompt="one that stores the prompt's whole blocks",
    ),
)

#: Profiles by name.
PROFILES: Mapping[str, RuntimeProfile] = MappingProxyType({profile.name: profile for profile in _PROFILES})


def find_profile(name: str) -> RuntimeProfile:
    """The profile called ``name``; raises :class:`ProfileError` with the known names where there is none."""
    if name not in PROFILES:
        raise ProfileError(f"unknown runtime {name!r}, expected one of {', '.join(PROFILES)}")
    return PROFILES[name]
