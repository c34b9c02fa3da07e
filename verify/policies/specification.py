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

#: Every name that a policy may have, and the form of its specification.
FORMS = {
    "static": "static:k",
    "threshold": "threshold:tau",
    "quota": "quota:S[/L]",
    "dynamic": "dynamic:tau[:k or :S/L]",
    "dream": "dream:confidence|margin|entropy:S[:eps]",
    "low_confidence": "low_confidence:S/L",
    "low_confidence_static": "low_confidence_static:S/L",
    "low_confidence_dynamic": "low_confidence_dynamic:tau[:S/L]",
    "confidence_threshold": "confidence_threshold:tau",
    "maskgit_plus": "maskgit_plus:S[:eps]",
    "topk_margin": "topk_margin:S[:eps]",
    "entropy": "entropy:S[:eps]",
}

_DREAM_ALIASES = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


def make_policy(spec: str, temperature: float = 0.0) -> Policy:
    """Make a policy from its specification, or from the name that a published loop gives it.

    Args:
        spec: ``static:k`` with an integer k >= 1, ``threshold:tau`` with 0 < tau <= 1, or one of the forms and names
            in the table above; the policy's own ``spec`` is the one text for it that is stored.
        temperature: 0 takes argmax tokens; above 0 tokens are sampled with counter-based noise.

    Raises:
        PolicyError: the text names no policy, or a parameter is missing, too many, unreadable or out of range.

    >>> make_policy("threshold:0.90").spec
    'threshold:0.9'
    >>> make_policy("low_confidence:8/32").spec, make_policy("static:4").step_size
    ('static:4', 4)
    """
    if not (isinstance(temperature, int | float) and 0 <= temperature < float("inf")):
        raise PolicyError(f"temperature is {temperature!r}, expected a finite number of at least 0")
    name, *arguments = spec.split(":")
    if name not in FORMS:
        raise PolicyError(f"unknown policy {spec!r}; expected one of {', '.join(FORMS.values())}")
    try:
        return _make(name, arguments, float(temperature))
    except ValueError as error:
        raise PolicyError(f"policy {spec!r}: {error}; the form is {FORMS[name]}") from error


def step_sizes(spec: str) -> int | None:
    """Pairs per denoising step under the policy ``spec`` (None: one or more). Raises :class:`PolicyError`."""
    return make_policy(spec).step_size


def stated_block_length(spec: str) -> int | None:
    """The ``L`` of an ``S/L`` in ``spec``, the block length that its steps are counted for; None where there is none.

    It is part of the text only: ``low_confidence:8/32`` is stored as ``static:4``. Raises :class:`PolicyError`.
    """
    make_policy(spec)
    _, slash, positions = spec.rpartition("/")
    return int(positions) if slash else None


def _make(name: str, arguments: list[str], temperature: float) -> Policy:
    """The policy ``name`` of ``FORMS`` with these arguments; every ValueError says which argument is wrong and how."""
    # A colon stands before every parameter of a form, and those in brackets may be left out.
    at_least, at_most = FORMS[name].partition("[")[0].count(":"), FORMS[name].replace(" or :", "").count(":")
    if not at_least <= len(arguments) <= at_most or not arguments[0]:
        expected = f"{at_least}" if at_least == at_most else f"{at_least} or {at_most}"
        count = len([argument for argument in arguments if argument])
        raise ValueError(f"it has {count} parameter{'s' * (count != 1)}, expected {expected}")
    match name:
        case "static":
            return StaticTopK(_whole("k", arguments[0]), temperature)
        case "threshold" | "confidence_threshold":
            return Threshold(_share("tau", arguments[0]), temperature)
        case "quota" | "low_confidence" | "low_confidence_static":
            steps, positions = _fraction(arguments[0], optional=name == "quota")
            if positions is not None and positions % steps == 0:
                return StaticTopK(positions // steps, temperature)
            # LLaDA counts from what is masked, which is its whole block; SDAR from the block, prompt tail included.
            return Quota(temperature, steps, None if name == "low_confidence" else positions)
        case "dynamic" | "low_confidence_dynamic":
            return _dynamic(name, _share("tau", arguments[0]), arguments[1:], temperature)
    order, steps_text, *eps = [_DREAM_ALIASES[name], *arguments] if name in _DREAM_ALIASES else arguments
    if order not in ORDERS:
        raise ValueError(f"the order is {order!r}, expected {', '.join(ORDERS)}")
    return Dream(temperature, order, _whole("S", steps_text), _share("eps", eps[0]) if eps else DREAM_EPS)


def _dynamic(name: str, tau: float, quota: list[str], temperature: float) -> Policy:
    if not quota:
        return Dynamic(temperature, tau)
    if name == "dynamic" and "/" not in quota[0]:
        return Dynamic(temperature, tau, _whole("k", quota[0]))
    steps, positions = _fraction(quota[0], optional=False)
    if positions is not None and positions % steps == 0:
        return Dynamic(temperature, tau, positions // steps)
    return Dynamic(temperature, tau, 1, steps, positions)


def _whole(what: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError(f"{what} is {text!r}, expected an integer of at least 1")
    return value


def _share(what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError(f"{what} is {text!r}, expected a number above 0 and at most 1")
    return value


def _fraction(text: str, optional: bool) -> tuple[int, int | None]:
    steps, slash, positions = text.partition("/")
    if not slash and not optional:
        raise ValueError(
            f"{text!r} lacks the block length, expected S/L (S steps per block of L positions), for example 8/32"
        )
    return _whole("S", steps), _whole("L", positions) if slash else None
