"""A tiny checkpoint on disk and prompts for it, shared by the tests of whole studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.models import END_ID, MASK_ID, tiny_llama


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_llama(seed=3).save_pretrained(folder)
    (folder / "draftgraph.json").write_text(json.dumps({"mask_token_id": MASK_ID, "end_token_ids": [END_ID]}))
    return folder


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = [{"id": f"p{n}", "tokens": [3 + (7 * n + k * k) % 45 for k in range(5 + n % 3)]} for n in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
