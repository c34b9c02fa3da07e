"""What a copy of the runtime core makes of a vector (``studies.conformance.vectors``), in the form of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from studies.conformance.vectors import Case
from verify.graph.buffers import pad_formulas
from verify.graph.formulas import formula
from verify.runtimes import numpy_core, torch_core

#: The cores of this project: the module, and what makes an array of its library of a numpy array.
CORES: dict[str, tuple[Any, Callable[[np.ndarray], Any]]] = {
    "numpy": (numpy_core, np.asarray),
    "torch": (torch_core, torch.from_numpy),
}


def decided(core: Any, array: Callable[[np.ndarray], Any], case: Mapping[str, Any]) -> Case:
    """Run ``core`` on a case, as the second sequence of a batch of two equal ones.

    Args:
        core: a module with the functions of ``verify.runtimes.numpy_core``, or of ``torch_core``.
        array: makes an array of its library of a numpy array.
        case: a vector. Rows that are not usable are handed over as NaN, as they must not be read.
    """
    stated, mask = case["rule"], case["mask_token"]
    given = (stated["k"],) if stated["name"] == "static" else (stated["least"], stated["tau"], stated["strict"])
    rule = core.Rule(*given)
    formulas, lengths = map(array, pad_formulas([formula(node) for node in case["nodes"]]))
    state = array(np.array([case["state"]] * 2))
    ranks = core.rank(array(np.array([case["logits"]] * 2, dtype=np.float32)), state, mask, case["top_j"])
    drafts, usable = core.fill(formulas, lengths, ranks, state, case["complete"])
    numbers = np.array([case["rows"]] * 2, dtype=np.float32)
    numbers[~np.array(usable.tolist())] = np.nan
    rows = array(numbers)
    found = core.accept(rows, drafts, usable, mask, rule)
    filled, path = drafts.tolist()[1], [row for row in found.path.tolist()[1] if row >= 0]
    states = [*(filled[row] for row in path), found.state.tolist()[1]]
    return {
        "order": ranks.order.tolist()[1],
        "tokens": ranks.tokens.tolist()[1],
        "usable": usable.tolist()[1],
        "drafts": filled,
        "path": path if found.accepted.tolist()[1] == len(path) - 1 else None,
        "commits": [
            [[position, token] for position, token in enumerate(after) if before[position] != token]
            for before, after in pairwise(states)
            if mask in before
        ],
        "state": states[-1],
    }
