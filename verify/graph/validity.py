"""For whom a saved graph or drafter is valid, and whether a run fits it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from verify.blocks import ScheduleError, make_schedule
from verify.files.strict_json import Words, expect_integer, expect_number, expect_object, expect_text, fail
from verify.policies.confidence import StaticTopK
from verify.policies.contract import PolicyError
from verify.policies.registry import BUILT_IN
from verify.policies.specification import canonical_policy, make_policy, without_sampling

CACHES = ("none", "prefix", "dual", "block_causal")

MAX_BLOCK_LENGTH = 2**15 - 1
MAX_TOP_J = 2**15 - 1


@dataclass(frozen=True)
class Validity:
    """For whom a graph was calibrated, or a drafter tuned; with anything else its formulas mean other states.

    Attributes:
        model: the checkpoint's name, without a path.
        model_revision: what identifies its weights (a commit or a digest), None where none was stated.
        policy: the specification of the unmasking policy, for example ``static:1``. Its first word is the rule's name
            in the registry; one that is not known here is taken as it is. With a temperature above 0 that stands beside
            it alone, as older files have it, it is completed: ``static:1@temperature=0.7``.
        block_length: positions in a block, ``L``.
        cache: one of ``CACHES``.
        temperature: at which tokens were sampled, 0 for argmax.
        top_j: vocabulary ranks that were recorded; no formula names a higher one.
        schedule: how long each block is (``verify.blocks``), ``block_length`` at most; None where all are as long. A
            file states it only where there is one.
    """

    model: str
    model_revision: str | None
    policy: str
    block_length: int
    cache: str
    temperature: float
    top_j: int
    schedule: str | None = None

    def __post_init__(self) -> None:
        """Raise a PolicyError where the policy's text and ``temperature`` contradict each other."""
        object.__setattr__(self, "policy", canonical_policy(self.policy, self.temperature))

    def stated(self) -> dict[str, Any]:
        """Its fields as a file has them."""
        return {name: value for name, value in vars(self).items() if name != "schedule" or value is not None}

    def mismatches(self, run: Validity, what: str = "the graph was calibrated") -> list[str]:
        """What stands between this graph and a ``run``, one readable line each; empty when the graph fits.

        Where both sides state a revision it says whether the model is the same, and names are not compared: one folder
        has many. A run may know more vocabulary ranks than the graph was calibrated with, not fewer. ``what`` begins
        the lines.
        """
        lines = []
        revised = self.model_revision is not None and run.model_revision is not None
        for item in fields(self):
            ours, theirs = getattr(self, item.name), getattr(run, item.name)
            if item.name == "model":
                fits = revised or ours == theirs
            elif item.name == "model_revision":
                fits = not revised or ours == theirs
                ours, theirs = f"{ours} of {self.model}", f"{theirs} of {run.model}"
            elif item.name == "top_j":
                fits = theirs >= ours
            else:
                fits = ours == theirs
            if not fits:
                name = item.name.replace("_", " ")
                lines.append(f"{name}: {what} for {ours!r}, the run has {theirs!r}")
        return lines


#: The fields that every file states.
REQUIRED = tuple(item.name for item in fields(Validity) if item.name != "schedule")


def read_validity(value: object) -> Validity:
    """Check the ``validity`` of a file.

    Raises:
        StrictJsonError: a field that is missing, unknown, of another type or out of range.
    """
    scheduled = isinstance(value, dict) and "schedule" in value
    stated = expect_object(value, "validity", [*REQUIRED, *(["schedule"] if scheduled else [])])
    if stated["model_revision"] is not None:
        expect_text(stated["model_revision"], "validity.model_revision")
    temperature = expect_number(stated["temperature"], "validity.temperature", 0.0)
    policy = _read_policy(expect_text(stated["policy"], "validity.policy"), temperature)
    if stated["cache"] not in CACHES:
        fail("validity.cache", f"one of {', '.join(CACHES)}", stated["cache"])
    length = expect_integer(stated["block_length"], "validity.block_length", 1, MAX_BLOCK_LENGTH)
    schedule = _read_schedule(stated["schedule"], length, stated["cache"]) if scheduled else None
    return Validity(
        model=expect_text(stated["model"], "validity.model"),
        model_revision=stated["model_revision"],
        policy=policy,
        block_length=length,
        cache=stated["cache"],
        temperature=temperature,
        top_j=expect_integer(stated["top_j"], "validity.top_j", 1, MAX_TOP_J),
        schedule=schedule,
    )


def _read_schedule(value: object, block_length: int, cache: str) -> str:
    """The schedule of a file.

    Raises:
        StrictJsonError: one that cannot be read, or in another spelling than the shortest; or one of block-causal
            models, which have none.
    """
    text = expect_text(value, "validity.schedule")
    try:
        complete = make_schedule(text, block_length).spec
    except ScheduleError as error:
        fail("validity.schedule", "a schedule with valid parameters", Words(str(error)[:300]))
    if text != complete:
        fail("validity.schedule", f'"{complete}"', text)
    if cache == "block_causal":
        fail("validity.schedule", "no such field in cache mode block_causal", text)
    return text


def _read_policy(policy: str, temperature: float) -> str:
    """The policy of a file, complete; a rule that is not ours is not looked into, and no package is asked about it.

    Raises:
        StrictJsonError: one of our rules with parameters that cannot be read, in another spelling than the shortest, or
            with another temperature than the one beside it.
    """
    if _rule_name(policy) not in BUILT_IN:
        return policy
    try:
        complete = make_policy(policy, temperature, stored=True).spec
        alone = make_policy(policy, stored=True).spec
    except PolicyError as error:
        fail("validity.policy", "a policy with valid parameters", Words(str(error)[:300]))
    if policy not in (complete, alone):
        # Two spellings of one policy would count as two when a run is compared with the graph.
        fail("validity.policy", f'"{complete}"', policy)
    return complete


def edge_step(policy: str) -> int | None:
    """Pairs that an edge of a graph file adds under ``policy``: ``k`` for ``static:k``, None (any number) for all else.

    The format says so of names, not of rules, so that every reader takes the same file, whatever rules it knows.
    """
    if _rule_name(policy) != StaticTopK.name:
        return None
    try:
        return make_policy(policy).step_size
    except PolicyError as error:
        fail("validity.policy", "a policy with valid parameters", Words(str(error)[:300]))


def _rule_name(policy: str) -> str:
    return without_sampling(policy).partition(":")[0]
