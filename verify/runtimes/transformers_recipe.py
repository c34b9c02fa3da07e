"""A file ``custom_generate/generate.py`` for a checkpoint's repository: whoever loads it decodes with its drafts.

``model.generate(..., custom_generate="owner/repository", trust_remote_code=True)`` runs that file; a model that is
loaded from the repository with ``trust_remote_code=True`` has it as its ``generate``. transformers copies the one file
and nothing beside it, so the drafts stand in it as text. It imports the installed package and holds no other code.
"""

from __future__ import annotations

from pathlib import Path

from verify.drafters.file import DrafterFile, format_drafter
from verify.files.writing import write_atomically
from verify.graph.file import GraphFile, check_graph, format_graph
from verify.graph.validity import Validity

#: Where transformers looks for it in a repository.
RECIPE = "custom_generate/generate.py"

_TEXT = '''\
"""Decoding of {model} with calibrated drafts: the tokens of plain decoding in fewer forward passes.

Policy {policy}, blocks of {block_length}, cache {cache}. Written by draftgraph, which must be installed.
"""

try:
    from verify.drafters.file import parse_drafts
    from verify.runtimes.transformers import recipe_generate
except ImportError as error:
    raise ImportError("this repository decodes with draftgraph, which is not installed; install draftgraph") from error

FACTS = {{"mask_token_id": {mask_token_id}, "logits_shift": {logits_shift}}}
DRAFTS = parse_drafts(
    r\'\'\'
{drafts}\'\'\'
)


def generate(inputs=None, *, model, **arguments):
    """``model.generate`` with the drafts of this file; its arguments are those of ``generate``."""
    return recipe_generate(model, inputs, DRAFTS, FACTS, **arguments)
'''


def recipe_text(drafts: GraphFile | DrafterFile, mask_token_id: int, logits_shift: int = 0) -> str:
    """The text of the file.

    Args:
        drafts: a graph, or a drafter that says for whom it was tuned.
        mask_token_id, logits_shift: of the model, as in :func:`verify.runtimes.transformers.draftgraph_generate`.

    Raises:
        ValueError: a drafter without validity (nothing would say how to decode), a negative mask token, or a shift that
            is neither 0 nor 1.
        verify.graph.file.GraphFileError: the graph breaks the format.
    """
    valid: Validity | None = drafts.validity
    if valid is None:
        raise ValueError("the drafter does not say for whom it was tuned, so nothing says how to decode; tune it again")
    if mask_token_id < 0 or logits_shift not in (0, 1):
        raise ValueError(
            f"mask_token_id is {mask_token_id} and logits_shift {logits_shift}, expected a token id, and 0 or 1"
        )
    if isinstance(drafts, GraphFile):
        check_graph(drafts)
        text = format_graph(drafts)
    else:
        text = format_drafter(drafts)
    return _TEXT.format(
        model=_word(valid.model),
        policy=_word(valid.policy),
        block_length=valid.block_length,
        cache=valid.cache,
        mask_token_id=int(mask_token_id),
        logits_shift=int(logits_shift),
        # In JSON a quote of this kind stands in texts alone, where its number means the same.
        drafts=text.replace("'", "\\u0027"),
    )


def save_recipe(drafts: GraphFile | DrafterFile, folder: str | Path, mask_token_id: int, logits_shift: int = 0) -> Path:
    """Write the file into the repository at ``folder``, whole or not at all; returns its path. Errors as above.

    Raises:
        OSError: it cannot be written.
    """
    text = recipe_text(drafts, mask_token_id, logits_shift)
    path = Path(folder) / RECIPE
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _word(text: str) -> str:
    """A name as it can stand in a docstring: what could end one, or a line, is left out."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in '"\\')
