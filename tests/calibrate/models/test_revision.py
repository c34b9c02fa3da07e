"""A revision reaches every call that asks the hub for something, and nothing else."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from tests.support.families import CONFIGS, save
from tests.support.models import MASK_ID, tiny_llama

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_model_that_transformers_knows(tmp_path, monkeypatch):
    tiny_llama().save_pretrained(tmp_path)
    asked = []

    def from_folder(owner, name):
        real = getattr(owner, name)

        def given(where, *arguments, **options):
            asked.append((owner.__name__, where, options.pop("revision", None)))
            return real(tmp_path, *arguments, **options)

        monkeypatch.setattr(owner, name, given)

    from_folder(PretrainedConfig, "get_config_dict")
    for owner in (AutoConfig, AutoModelForCausalLM, AutoTokenizer):
        from_folder(owner, "from_pretrained")
    load_checkpoint("someone/tiny", mask_token_id=MASK_ID, revision="v2")
    names = (PretrainedConfig.__name__, "AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    assert [call for call in asked if call[1] == "someone/tiny"] == [(name, "someone/tiny", "v2") for name in names]
    asked.clear()
    load_checkpoint("someone/tiny", mask_token_id=MASK_ID)
    assert {call[2] for call in asked} == {None}


def test_a_family_is_fetched_at_its_revision_and_says_the_commit(tmp_path, monkeypatch):
    folder = save("dream", tmp_path / COMMIT)
    asked = []

    def snapshot(name, allow_patterns, revision=None):
        asked.append(revision)
        return str(folder)

    def stated(name, **options):
        asked.append(options.get("revision"))
        return dict(CONFIGS["dream"]), {}

    monkeypatch.setattr("calibrate.models.checkpoint.snapshot_download", snapshot)
    monkeypatch.setattr("calibrate.models.checkpoint.PretrainedConfig.get_config_dict", stated)
    assert load_checkpoint("someone/Dream-7B", revision="v2").revision == COMMIT
    assert asked == ["v2", "v2"]


@pytest.mark.parametrize("source", ["bundled", "folder"])
def test_what_is_not_on_the_hub_has_no_revision(tmp_path, source):
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"revision 'v2' of .* was asked for, but only models on the hub have"):
        load_checkpoint(source if source == "bundled" else tmp_path, mask_token_id=MASK_ID, revision="v2")
