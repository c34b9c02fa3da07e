"""Policies from text: ``static:k``, ``threshold:tau``, and the rules of published loops (docs/models.md).

====================================  =============================  ==================================================
published name, as an alias           is here                        rule
====================================  =============================  ==================================================
``low_confidence:S/L``                ``static:L/S``, ``quota:S``    LLaDA: S steps per block of L
``low_confidence_static:S/L``         ``static:L/S``, ``quota:S/L``  SDAR: the same, counted from a full block
``low_confidence_dynamic:tau[:S/L]``  ``dynamic:tau[:k | :S/L]``     SDAR, LLaDA2: all above tau, if as many as static
``confidence_threshold:tau``          ``threshold:tau``              Fast-dLLM: the best, and all of at least tau
``maskgit_plus:S[:eps]``              ``dream:confidence:S[:eps]``   Dream: by probability, S steps of its time schedule
``topk_margin:S[:eps]``               ``dream:margin:S[:eps]``       Dream: by the lead over the second token
``entropy:S[:eps]``                   ``dream:entropy:S[:eps]``      Dream: by negative entropy
====================================  =============================  ==================================================

``static:L/S`` stands where S divides L, as every step then commits the same count. None of these rules looks back:
the only history is how many positions were masked when the block began.
"""

from __future__ import annotations

from verify.policies.confidence import Dynamic, Quota, StaticTopK, Threshold
from verify.policies.contract import Policy, PolicyError
from verify.policies.dream import DREAM_EPS, ORDERS, Dream


def make_policy(spec: str, temperature: float = 0.0) -> Policy:
    """Make a policy from its specification, or from the name that a published loop gives it.

    Args:
        spec: ``static:k`` with an integer k >= 1, ``threshold:tau`` with 0 < tau <= 1, or one of the forms and names
            in the table above; the policy's own ``spec`` is the one text for it that is stored.
        temperature: 0 takes argmax tokens; above 0 tokens are sampled with counter-based noise.

    Raises:
        PolicyError: the text names no policy, or a parameter is out of range.
    """
    own = "static:k (k >= 1) or threshold:tau (0 < tau <= 1), for example threshold:0.9"
    expected = f"expected {own}; or a published rule: {EXPECTED}"
    if not (isinstance(temperature, int | float) and 0 <= temperature < float("inf")):
        raise PolicyError(f"temperature is {temperature!r}, expected a finite number of at least 0")
    name, _, argument = spec.partition(":")
    try:
        if name == "static" and int(argument) >= 1:
            return StaticTopK(int(argument), float(temperature))
        if name == "threshold" and 0 < float(argument) <= 1:
            return Threshold(float(argument), float(temperature))
        if (published := parse_published(spec, float(temperature))) is not None:
            return published
    except ValueError:
        pass
    raise PolicyError(f"unknown policy {spec!r}; {expected}")


def step_sizes(spec: str) -> int | None:
    """Pairs per denoising step under the policy ``spec`` (None: one or more). Raises :class:`PolicyError`."""
    return make_policy(spec).step_size


#: What the parser understands, for the error of :func:`verify.policies.specification.make_policy`.
EXPECTED = (
    "quota:S[/L], dynamic:tau[:k or :S/L], dream:confidence|margin|entropy:S[:eps], low_confidence:S/L, "
    "low_confidence_static:S/L, low_confidence_dynamic:tau[:S/L], confidence_threshold:tau, maskgit_plus:S, "
    "topk_margin:S, entropy:S"
)


_DREAM_ALIASES = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


def parse_published(spec: str, temperature: float) -> Policy | None:
    """The policy that a specification or a published name stands for; None when it is neither.

    Raises:
        ValueError: a parameter is no number or out of range.
    """
    name, *arguments = spec.split(":")
    match name, arguments:
        case "quota" | "low_confidence" | "low_confidence_static", [fraction]:
            steps, positions = _read_fraction(fraction, optional=name == "quota")
            if positions is not None and positions % steps == 0:
                return StaticTopK(positions // steps, temperature)
            # LLaDA counts from what is masked, which is its whole block; SDAR from the block, prompt tail included.
            return Quota(temperature, steps, None if name == "low_confidence" else positions)
        case "dynamic" | "low_confidence_dynamic", [tau]:
            return Dynamic(temperature, _share(tau))
        case "dynamic", [tau, count] if "/" not in count:
            return Dynamic(temperature, _share(tau), _whole(count))
        case "dynamic" | "low_confidence_dynamic", [tau, fraction]:
            steps, positions = _read_fraction(fraction, optional=False)
            assert positions is not None
            if positions % steps == 0:
                return Dynamic(temperature, _share(tau), positions // steps)
            return Dynamic(temperature, _share(tau), 1, steps, positions)
        case "confidence_threshold", [tau]:
            return Threshold(_share(tau), temperature)
        case "dream", [order, steps, *eps] if order in ORDERS and len(eps) <= 1:
            return Dream(temperature, order, _whole(steps), _share(eps[0]) if eps else DREAM_EPS)
        case _, [steps, *eps] if name in _DREAM_ALIASES and len(eps) <= 1:
            return Dream(temperature, _DREAM_ALIASES[name], _whole(steps), _share(eps[0]) if eps else DREAM_EPS)
    return None


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"{text} is below 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(f"{text} is not above 0 and at most 1")
    return value


def _read_fraction(text: str, optional: bool) -> tuple[int, int | None]:
    steps, slash, positions = text.partition("/")
    if not slash and not optional:
        raise ValueError(f"{text} lacks the block length; expected steps/length, for example 8/32")
    return _whole(steps), _whole(positions) if slash else None
