"""Learn2PD: a small network says which tokens are final already; and the file that holds it."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from verify.files.strict_json import StrictJsonError
from verify.files.tensors import parse_tensors
from verify.policies.base import BasePolicy
from verify.policies.contract import BlockView, Commits, PolicyError
from verify.policies.parameters import Number, Parameter, Whole
from verify.policies.randomness import StepRandom
from verify.policies.rule import Rule

#: The arrays of a filter file, and what they do to the confidences of a block of B positions.
ARRAYS = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")

#: Instead of a path: the filter beside this module, for the bundled model; and its digest, so that naming it reads
#: nothing. Another model needs another one (docs/rules.md says how it is trained).
BUNDLED = "bundled"
BUNDLED_DIGEST = "f3cd6ed1dca0a0a9"

_BUNDLED_FILE = Path(__file__).with_name("learn2pd-bundled.safetensors")
_MAX_BYTES = 2**24
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, eq=False)
class Filter:
    """A two-layer perceptron over the confidences of a block, float64; ``B`` positions.

    Attributes:
        hidden: [B, B] weights and [B] bias of the hidden layer.
        output: the same of the output layer.
    """

    hidden: tuple[np.ndarray, np.ndarray]
    output: tuple[np.ndarray, np.ndarray]

    def __len__(self) -> int:
        return len(self.hidden[1])

    def log_odds(self, confidences: np.ndarray) -> np.ndarray:
        """float64 [B], how surely the token of every position is final, of ``confidences`` (float64 [B])."""
        inner = np.maximum(self.hidden[0] @ confidences + self.hidden[1], 0.0)
        return self.output[0] @ inner + self.output[1]


@dataclass(frozen=True)
class FilterFile:
    """Where a filter is, and which one it is.

    Attributes:
        path: as it was written; or ``BUNDLED``.
        digest: the first 16 hexadecimal digits of the SHA-256 of the file.
    """

    path: str
    digest: str

    def load(self) -> Filter:
        """The filter. Raises a PolicyError where the file is gone, is another one, or holds no filter."""
        return _load(self.path, self.digest)


def _read(path: str) -> tuple[bytes, str]:
    """The content of a filter file, and its digest."""
    place = _BUNDLED_FILE if path == BUNDLED else Path(path)
    try:
        if place.exists() and not place.is_file():
            raise ValueError("no regular file")
        with place.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise PolicyError(f"the filter {path!r} cannot be read ({reason}); train one (docs/rules.md)") from None
    if len(data) > _MAX_BYTES:
        raise PolicyError(f"the filter {path!r} has more than {_MAX_BYTES} bytes; it is none of ours")
    return data, hashlib.sha256(data).hexdigest()[:16]


@lru_cache(maxsize=16)
def _load(path: str, digest: str) -> Filter:
    data, found = _read(path)
    if found != digest:
        raise PolicyError(
            f"the filter {path!r} has digest {found}, but the policy was made with {digest}; put that file there, or "
            "name the path without a digest to take the new one"
        )
    try:
        arrays, _ = parse_tensors(data)
    except StrictJsonError as error:
        raise PolicyError(f"the filter {path!r} is no safetensors file of ours: {error}") from error
    length = len(arrays["hidden.bias"]) if "hidden.bias" in arrays else 0
    expected = dict(zip(ARRAYS, ((length, length), (length,)) * 2, strict=True))
    if {name: array.shape for name, array in arrays.items()} != expected:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sorted(arrays.items())) or "nothing"
        raise PolicyError(f"the filter {path!r} holds {shapes[:300]}; expected {', '.join(ARRAYS)} of [B, B] and [B]")
    weights = [arrays[name].astype(np.float64) for name in ARRAYS]
    return Filter((weights[0], weights[1]), (weights[2], weights[3]))


@dataclass(frozen=True)
class FilterPath(Parameter):
    """A filter file: its path, and its digest behind ``#``; without a digest the file is looked at.

    With one it is not, until a decode begins: a graph made for such a rule can be read where the filter is not.
    """

    @property
    def range(self) -> str:
        return f"FILE or FILE#DIGEST (16 hexadecimal digits), or {BUNDLED}; a path without ':', '@' and '#'"

    def read(self, text: str) -> FilterFile:
        path, mark, digest = text.partition("#")
        if not path or (mark and not _DIGEST.fullmatch(digest)):
            raise ValueError(f"{self.name} is {text!r}, expected {self.range}")
        if not mark:
            digest = BUNDLED_DIGEST if path == BUNDLED else _read(path)[1]
        return FilterFile(path, digest)

    def check_stored(self, text: str) -> None:
        """A file from elsewhere must not make us open what it names; with a digest nothing is opened."""
        if "#" not in text and text != BUNDLED:
            raise ValueError(f"{self.name} is {text!r}, expected a path with its digest behind '#'")

    def write(self, value: FilterFile) -> str:
        return f"{value.path}#{value.digest}"


@dataclass(frozen=True)
class Learn2PD(BasePolicy):
    """Commit what a learned filter takes for final with more than ``tau``, and always the most confident position.

    The filter sees the confidences of the block's positions in their order and gives log-odds for each; a position is
    committed if the sigmoid of its own is above ``tau``, strictly.

    arXiv 2509.25188; ims-kdks/Learning-to-Parallel-Decoding at 342293c, ``llada/generate.py``, generate_learn2parallel
    (k = 1, as in all its scripts); the network as in ``llada/model/small_model.py`` of a copy, wyffffff/cora-diff-llada
    at a08ed01. Where we differ: a position that is committed counts 1, where the source has the confidence of what the
    model would say there now, which no decode here computes (so filters are trained on that too:
    ``studies.learned_filter``); the mask token is left out before the softmax; float64. Positions that a shorter block
    lacks count 0, as in the source.

    End-of-text prediction: with ``end``, the first position that passes the filter with this token ends the text. The
    source cuts the sequence there. Here the rest of the block is committed as ``end``, which the loop, the traces and
    graphs can follow as they are, and which ends the sequence with the block where ``end`` is an end token of the
    decode; the text up to the end token is not longer than the source's, but later blocks stay in sight until then.
    The source's second rule, which cuts without any threshold at the likeliest end token, is left out.
    """

    filter: FilterFile
    tau: float = 0.96
    end: int | None = None
    name = "learn2pd"
    parameters = (FilterPath("FILE"), Number("tau", default=0.96), Whole("end", 0, default=None))

    def initial_state(self) -> int:
        """The state is the block's length; a filter that cannot be used is found out here, before the first forward."""
        self.filter.load()
        return 0

    def step(self, view: BlockView, state: int, rng: StepRandom) -> tuple[Commits, int]:
        network, found = self.filter.load(), self.candidates(view, rng)
        reach = 1 + int(found.positions.max())  # a block's last position is masked when it begins
        length = reach if rng.step == 1 else max(state, reach)
        if length > len(network):
            raise PolicyError(
                f"the filter {self.filter.path!r} is for blocks of at most {len(network)} positions, this block has "
                f"{length}; train one for that length"
            )
        confidences = np.zeros(len(network))
        confidences[:length] = 1.0
        confidences[found.positions] = found.confidences
        bound = math.log(self.tau) - math.log1p(-self.tau) if self.tau < 1 else math.inf
        passed = network.log_odds(confidences)[found.positions] > bound
        chosen, tokens = passed.copy(), found.tokens
        chosen[0] = True
        if self.end is not None:
            ends = found.positions[passed & (tokens == self.end)]
            behind = found.positions > ends.min(initial=len(network))
            chosen, tokens = chosen | behind, np.where(behind, self.end, tokens)
        return Commits(found.positions[chosen], tokens[chosen]), length


_SOURCE = "Learn2PD (arXiv 2509.25188), llada/generate.py, generate_learn2parallel"

RULES = (Rule.of(Learn2PD, _SOURCE, [f"learn2pd:{BUNDLED}#{BUNDLED_DIGEST}"], exact=False),)
