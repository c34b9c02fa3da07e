"""What a study depends on, and the prompts that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibrate.models.checkpoint import Checkpoint
from calibrate.models.settings import DEFAULT_CACHE, decode_settings
from calibrate.prompts.encoding import encode_for, prompt_hash
from calibrate.prompts.prompt import Prompt, PromptError
from calibrate.prompts.source import has_splits, load_prompt_set
from calibrate.recording.states import can_be_logged, check_logged
from drafting.searches.methods import find_method
from studies.runs.splits import check_disjoint
from verify.layout import SequenceLayout, exactness
from verify.policies.specification import make_policy

Tokens = tuple[int, ...]

#: Among the methods of a run the one that is no search: drafts that learn in the block (``studies.runs.informed``).
INFORMED = "informed"

#: The share of test prompts where a file names no splits and nobody says how it is to be cut.
DEFAULT_FRACTION = "0.5"


@dataclass(frozen=True)
class CalibrationConfig:
    """Everything a calibration run depends on; written to ``config.json`` as it is.

    ``search_prompts`` and ``test_prompts`` cut the splits; None takes them whole. The runtime verifier runs on the
    first ``measured_prompts`` of the test split; None is all of them, and 0 leaves it out. ``prompts`` and ``held_out``
    are ``bundled``, ``datasets:NAME`` or JSONL files. A file for ``prompts`` whose lines name no splits is cut by
    ``split_fraction`` (see ``calibrate.prompts.source``) unless there is a ``held_out``, by default in two halves.
    ``chat`` puts them into the model's chat template, ``revision`` names one of a hub model. ``certify`` bounds every
    graph by the price sweep (``drafting.searches.closure``), so that each row says how far it can be from the best of
    its size. ``batch_size`` changes no token in float32, so a run may be continued with another. A ``block_length`` or
    ``cache`` of None is what :meth:`settled` makes of checkpoint and policies. ``ignore_end_tokens`` decodes every
    answer to its full length. ``temperature`` is short for ``@temperature=...`` behind every policy; None takes what
    they say, else 0, and once settled it is that of all policies, None where they have several.
    """

    model: str = "bundled"
    prompts: str = "bundled"
    held_out: str | None = None
    policies: tuple[str, ...] = ("threshold:0.9",)
    temperature: float | None = None
    block_length: int | None = None
    generation_length: int = 96
    cache: str | None = None
    backend: str = "packed"
    budgets: tuple[int, ...] = (0, 3, 5, 8, 10)
    methods: tuple[str, ...] = ("chain", "published", "greedy")
    top_j: int = 8
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    search_prompts: int | None = 64
    test_prompts: int | None = 48
    measured_prompts: int | None = None
    mask_token_id: int | None = None
    certify: bool = True
    chat: bool = False
    revision: str | None = None
    batch_size: int = 1
    ignore_end_tokens: bool = False
    split_fraction: str | None = None

    def check(self) -> None:
        """Check everything that needs no model, before any work is done.

        Raises:
            ValueError: an unknown policy, no budget or one below 0, an unknown method, cache mode or back-end, lengths
                that do not fit, a batch of nothing.
        """
        for spec in self.policies:
            make_policy(spec, self.temperature)
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, expected at least 1")
        if not self.budgets or min(self.budgets) < 0:
            raise ValueError(f"budgets must be numbers of drafts of at least 0, got {list(self.budgets)}")
        for method in self.methods:
            if method == INFORMED:
                for spec in self.policies:
                    check_logged(make_policy(spec, self.temperature))
            else:
                find_method(method)
        exactness(self.cache or DEFAULT_CACHE, self.backend)
        if self.block_length is not None and self.cache is not None:
            SequenceLayout.make(1, self.generation_length, self.block_length, self.cache)

    def settled(self, checkpoint: Checkpoint) -> tuple[CalibrationConfig, str]:
        """This configuration with the blocks and the cache that it leaves to ``checkpoint``, and a line that says why.

        Every policy is then in its one canonical spelling, each once.

        Raises:
            ValueError: what does not fit the checkpoint (``calibrate.models.settings``), lengths that do not fit, or
                policies whose published loops have different blocks or caches.
        """
        found = {
            spec: decode_settings(
                checkpoint,
                spec,
                block_length=self.block_length,
                cache=self.cache,
                generation_length=self.generation_length,
            )
            for spec in self.policies
        }
        first = next(iter(found.values()))
        for spec, settings in found.items():
            if settings.config != first.config:
                raise ValueError(
                    f"the policies of one run need the same blocks and cache, but {self.policies[0]} has {first.note} "
                    f"and {spec} has {settings.note}; give --block-length and --cache, or a run for each"
                )
        rules = [make_policy(spec, self.temperature) for spec in self.policies]
        temperatures = {rule.temperature for rule in rules}
        chosen = first.config
        settled = replace(
            self,
            policies=tuple(dict.fromkeys(rule.spec for rule in rules)),
            temperature=temperatures.pop() if len(temperatures) == 1 else None,
            block_length=chosen.block_length,
            cache=chosen.cache,
        )
        settled.check()
        return settled, first.note

    @property
    def exact(self) -> bool:
        """Whether losslessness is promised: an exact cache mode and back-end, in float32; of a settled configuration.

        Raises:
            ValueError: the cache mode is not settled.
        """
        if self.cache is None:
            raise ValueError("the cache mode is None, expected a configuration after settled(checkpoint)")
        return exactness(self.cache, self.backend).exact and self.dtype == "float32"


def default_methods(policies: Sequence[str], temperature: float | None) -> tuple[str, ...]:
    """What a run compares where nobody names methods; informed drafts where a state log can hold every policy."""
    loggable = all(can_be_logged(make_policy(spec, temperature)) for spec in policies)
    return (*CalibrationConfig.methods, *([INFORMED] if loggable else []))


def encoded_splits(config: CalibrationConfig, checkpoint: Checkpoint) -> tuple[list[Tokens], list[Tokens]]:
    """Token ids of the search and the test prompts of a configuration.

    Raises:
        ValueError: (PromptError) a prompt set that cannot be read or encoded.
    """
    return encode_splits(prompt_splits(config), checkpoint, chat=config.chat)


def encode_splits(
    splits: tuple[list[Prompt], list[Prompt]], checkpoint: Checkpoint, *, chat: bool = False
) -> tuple[list[Tokens], list[Tokens]]:
    """Token ids of both splits.

    Raises:
        ValueError: a prompt that cannot be encoded, or (SplitError) one that is in both splits.
    """
    search, test = (encode_for(checkpoint, split, chat=chat) for split in splits)
    named = {"the search split": search, "the held-out split": test}
    check_disjoint((name, [prompt_hash(ids) for ids in encoded]) for name, encoded in named.items())
    return search, test


def prompt_splits(config: CalibrationConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Search and test prompts of a configuration; raises ``PromptError`` as in ``load_prompt_set``."""
    fraction = config.split_fraction
    if config.held_out is not None:
        if fraction is not None:
            raise PromptError(
                "--split-fraction cuts a file in search and held-out prompts, so it has no place beside "
                "held-out prompts of their own; leave one of the two out"
            )
        search = load_prompt_set(config.prompts)
        test = load_prompt_set(config.held_out, default="test")
    else:
        if fraction is None and not has_splits(config.prompts):
            fraction = DEFAULT_FRACTION
        search = load_prompt_set(config.prompts, "calibration", fraction=fraction)
        test = load_prompt_set(config.prompts, "test", fraction=fraction)
    return search[: config.search_prompts], test[: config.test_prompts]
