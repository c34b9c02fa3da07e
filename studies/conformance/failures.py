"""How a check says that a policy breaks the contract, and how two values are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


class Nonconformance(AssertionError):
    """A policy breaks its contract; the message says which part, where, and what was seen."""


def same(one: Any, other: Any) -> bool:
    """Whether two values, for example two states of a policy, are equal in type and in all that they hold.

    Arrays and tensors are compared entry by entry (NaN equals NaN), containers item by item, and an object without an
    equality of its own by its attributes.
    """
    if type(one) is not type(other):
        return False
    if hasattr(one, "__array__"):
        first, second = np.asarray(one), np.asarray(other)
        if first.dtype != second.dtype or first.shape != second.shape:
            return False
        if first.dtype.kind == "O":
            return same(first.tolist(), second.tolist())
        return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")
    if isinstance(one, Mapping):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if one is other or (isinstance(one, float) and one != one and other != other):
        return True
    if is_dataclass(other):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if getattr(type(one), "__eq__") is object.__eq__ and hasattr(one, "__dict__"):  # noqa: B009 - mypy takes it for constant
        return same(vars(one), vars(other))
    return bool(one == other)
