"""The parameters of the parametric constructor: ranges, neutral values, and known rules written as parameter values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One continuous parameter: its range, the value that does nothing, and what it does."""

    name: str
    low: float
    high: float
    neutral: float
    says: str


PARAMETERS = (
    Parameter("smoothing", 0.0, 1.0, 0.0, "pseudo-anchors (64 * smoothing^2) that pull each count towards a model"),
    Parameter("markov", 0.0, 1.0, 0.5, "that model: 1 = next state given the state, 0 = product of rank probabilities"),
    Parameter("count_discount", 0.0, 1.5, 0.0, "anchors taken off every count and given to the model (Kneser-Ney)"),
    Parameter("depth_discount", 0.7, 1.1, 1.0, "factor on the weight of a prefix per state behind the first"),
    Parameter("position_exponent", -0.3, 0.3, 0.0, "exponent on the probability of the position ranks of a prefix"),
    Parameter("vocabulary_exponent", -0.3, 0.3, 0.0, "exponent on the probability of its vocabulary ranks"),
    Parameter("look_ahead", 0.0, 1.0, 0.0, "share of the best next prefix that counts for a node already"),
    Parameter("order_blind", 0.0, 1.0, 0.0, "0 = anchors that reach a node through the graph, 1 = in any order"),
    Parameter("parent_bonus", 0.0, 1.0, 0.0, "share of the weight of its parents that a node is credited with"),
    Parameter("visited", 0.0, 1.0, 0.0, "0 = all anchors alike, 1 = those that a decode with the greedy graph visits"),
    Parameter("domain_mix", 0.0, 1.0, 0.5, "weight of the first domain against the others; there with several domains"),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

NEUTRAL: dict[str, float] = {parameter.name: parameter.neutral for parameter in PARAMETERS}
#: Parameter values that reproduce known rules or are a plain first guess: where a study starts.
WARM_STARTS: dict[str, dict[str, float]] = {
    "greedy": NEUTRAL,
    "published:degree1/all": {**NEUTRAL, "order_blind": 1.0, "parent_bonus": 1.0},
    "published:degree0": {**NEUTRAL, "order_blind": 1.0},
    "greedy, smoothed": {**NEUTRAL, "smoothing": 0.3, "count_discount": 0.5},
    "greedy on visited anchors": {**NEUTRAL, "visited": 1.0},
}


def check_parameters(parameters: Mapping[str, float]) -> dict[str, float]:
    """All parameters, those not given at their neutral value.

    Raises:
        ValueError: an unknown name, or a value that is not a number in the range.
    """
    unknown = sorted(set(parameters) - set(_BY_NAME))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; expected some of {', '.join(_BY_NAME)}")
    for name, value in parameters.items():
        known = _BY_NAME[name]
        if not known.low <= value <= known.high:
            raise ValueError(f"{name} must lie between {known.low:g} and {known.high:g}, got {value!r}")
    return {**NEUTRAL, **parameters}
