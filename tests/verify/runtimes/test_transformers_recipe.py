"""The file ``custom_generate/generate.py``, loaded and run by transformers itself."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.models import MASK_ID, tiny_llama
from tests.verify.runtimes.test_transformers import PROMPT, generated, graph_of
from verify.drafters.file import DrafterFile, DrafterFileError, format_drafter, parse_drafts
from verify.graph.file import GraphFile, GraphFileError, format_graph, parse_graph
from verify.graph.validity import Validity
from verify.runtimes.transformers import GenerateError
from verify.runtimes.transformers_recipe import RECIPE, recipe_text, save_recipe


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A checkpoint's folder with the file, and the model that is in it."""
    folder = tmp_path_factory.mktemp("repository")
    model = tiny_llama(3)
    model.save_pretrained(folder)
    assert save_recipe(graph_of("static:1"), folder, MASK_ID) == folder / RECIPE
    return folder, model


@pytest.fixture(autouse=True)
def own_module_cache(tmp_path, monkeypatch):
    """transformers copies a repository's code to a folder of its own before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_named_by_its_repository(repository):
    folder, model = repository
    plain = generated(model, policy="static:1", block_length=8, mask_token_id=MASK_ID)
    fast = model.generate(
        torch.tensor([PROMPT]), custom_generate=str(folder), trust_remote_code=True, max_new_tokens=16,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert torch.equal(fast.sequences, plain.sequences) and fast.forwards < plain.forwards


def test_as_the_generate_of_a_loaded_model(repository):
    folder, model = repository
    loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    plain = generated(model, policy="static:1", block_length=8, mask_token_id=MASK_ID)
    ids = torch.tensor([PROMPT])
    for arguments in ((ids,), ()):
        more = {} if arguments else {"input_ids": ids}
        found = loaded.generate(*arguments, **more, max_new_tokens=16, return_dict_in_generate=True)
        assert torch.equal(found.sequences, plain.sequences) and found.forwards < plain.forwards
    with pytest.raises(GenerateError, match="a streamer cannot follow blocks"):
        loaded.generate(ids, max_new_tokens=16, streamer=object())


def test_what_the_file_holds_can_be_replaced(repository):
    folder, _ = repository
    loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    found = loaded.generate(
        torch.tensor([PROMPT]), max_new_tokens=16, drafts=(), policy="static:1", block_length=8,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert torch.equal(found.forwards, found.steps)


def test_texts_that_could_end_the_file_early():
    """Quotes of every kind, and a backslash at the end of a name."""
    valid = Validity('it\'s """here""" \\', None, "static:1", 8, "dual", 0.0, 4)
    graph = GraphFile.from_nodes([((1, 1),)], valid, provenance={"note": "a ''' b", "path": "c:\\"})
    for drafts in (graph, DrafterFile(2, validity=valid, provenance={"note": "'''"})):
        scope = {}
        exec(recipe_text(drafts, 5, 1), scope)
        assert scope["DRAFTS"] == drafts and scope["FACTS"] == {"mask_token_id": 5, "logits_shift": 1}


@pytest.mark.parametrize(
    ("drafts", "mask", "shift", "message"),
    [
        (DrafterFile(2), 5, 0, "the drafter does not say for whom it was tuned"),
        (graph_of("static:1"), -1, 0, "mask_token_id is -1 and logits_shift 0"),
        (graph_of("static:1"), 5, 2, "mask_token_id is 5 and logits_shift 2"),
    ],
)
def test_refused(tmp_path, drafts, mask, shift, message):
    with pytest.raises(ValueError, match=message):
        save_recipe(drafts, tmp_path, mask, shift)
    assert not list(tmp_path.iterdir())


def test_drafts_from_text():
    graph = graph_of("static:1")
    drafter = DrafterFile(3, validity=graph.validity)
    assert parse_graph(format_graph(graph)) == parse_drafts(format_graph(graph)) == graph
    assert parse_drafts(format_drafter(drafter)) == drafter
    with pytest.raises(GraphFileError, match="graph: text: expected JSON, found none at line 1"):
        parse_drafts("no")
    with pytest.raises(GraphFileError, match='format: expected "draftgraph", found "other"'):
        parse_drafts('{"format": "other"}')
    with pytest.raises(DrafterFileError, match="drafter: version: expected 1"):
        parse_drafts('{"format": "draftgraph-drafter", "version": 9}')
