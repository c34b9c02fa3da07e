"""Blocks and cache follow from checkpoint and policy, and what does not fit is refused."""

import pytest

from calibrate.models.checkpoint import CheckpointError, load_checkpoint
from calibrate.models.settings import decode_settings
from tests.support.families import save
from tests.support.models import END_ID, tiny_checkpoint
from verify.blocks import ScheduleError


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: load_checkpoint(save(family, root / family)) for family in ("llada", "dream", "sdar", "llada2")}


def chosen(checkpoint, policy=None, **options):
    settings = decode_settings(checkpoint, policy, **options)
    return settings.config.block_length, settings.config.cache, settings.note


def refused(checkpoint, message, policy=None, **options):
    with pytest.raises(CheckpointError, match=message):
        decode_settings(checkpoint, policy, **options)


@pytest.mark.parametrize(
    ("family", "policy", "block_length", "cache"),
    [
        ("llada", "threshold:0.9", 32, "dual"),
        ("llada", None, 32, "dual"),
        ("llada", "low_confidence:8/16", 16, "dual"),
        ("llada", "low_confidence:5/16", 16, "dual"),
        ("sdar", "threshold:0.9", 4, "block_causal"),
        ("sdar", None, 4, "block_causal"),
        ("sdar", "low_confidence_dynamic:0.9:3/4", 4, "block_causal"),
        ("sdar", "maskgit_plus:8", 4, "block_causal"),
        ("llada2", "low_confidence_dynamic:0.9", 32, "block_causal"),
        ("dream", "threshold:0.9", 32, "dual"),
        ("dream", "maskgit_plus:8", 96, "none"),
        ("dream", "topk_margin:8", 96, "none"),
        ("dream", "dream:entropy:8", 96, "none"),
    ],
)
def test_what_is_chosen(families, family, policy, block_length, cache):
    found_length, found_cache, note = chosen(families[family], policy)
    assert (found_length, found_cache) == (block_length, cache)
    assert note.startswith(f"blocks of {block_length} (") and f", cache {cache} (" in note


def test_the_note_says_why(families):
    assert "(the length that sdar was trained for)" in chosen(families["sdar"])[2]
    assert "(the attention that sdar was trained with)" in chosen(families["sdar"])[2]
    assert "(the length that the policy counts its steps for)" in chosen(families["llada"], "low_confidence:8/16")[2]
    note = chosen(families["dream"], "entropy:8")[2]
    assert "(the whole answer, as in Dream's own loop)" in note and "drafts are exact with --backend expanded" in note
    assert "(asked for; sdar was trained for 4)" in chosen(families["sdar"], block_length=8)[2]
    assert "(Fast-dLLM's dual cache)" in chosen(families["llada"])[2]


def test_options_win(families):
    assert chosen(families["sdar"], block_length=8)[:2] == (8, "block_causal")
    assert chosen(families["dream"], "maskgit_plus:8", cache="dual")[:2] == (32, "dual")
    assert chosen(families["dream"], "maskgit_plus:8", block_length=48)[:2] == (48, "none")
    assert chosen(families["llada"], "low_confidence:8/16", block_length=16, cache="none")[:2] == (16, "none")


def test_what_does_not_fit_is_refused(families):
    refused(
        families["sdar"], "cache 'dual' needs bidirectional attention, .* or give --cache block_causal", cache="dual"
    )
    refused(families["llada"], "or give --cache none, prefix or dual", cache="block_causal")
    refused(families["sdar"], "blocks of 32, but sdar was trained for blocks of 4; .*--block-length 32", "quota:8/32")
    assert chosen(families["sdar"], "quota:8/32", block_length=32)[0] == 32
    message = "steps for blocks of 32, but blocks of 16 are asked for"
    refused(families["llada"], message, "low_confidence:8/32", block_length=16)


def test_fast_dllms_rule_for_dream_is_another_one(families):
    refused(families["dream"], "other texts than its loop .*--policy threshold:0.9 for", "confidence_threshold:0.9")
    assert chosen(families["llada"], "confidence_threshold:0.9")[:2] == (32, "dual")


def test_end_tokens_can_be_ignored():
    assert decode_settings(tiny_checkpoint()).config.end_token_ids == (END_ID,)
    assert decode_settings(tiny_checkpoint(), ignore_end_tokens=True).config.end_token_ids == ()


def test_other_fields_pass_through():
    config = decode_settings(tiny_checkpoint(), "static:1", generation_length=16, top_j=3, seed=5).config
    assert (config.block_length, config.generation_length, config.top_j, config.seed) == (8, 16, 3, 5)


class _Lines:
    """A tokenizer of as many tokens as are given."""

    def __init__(self, *texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def decode(self, tokens):
        return "".join(self.texts[token] for token in tokens)


def test_a_schedule_is_kept_in_its_one_text_and_the_note_says_so():
    checkpoint = tiny_checkpoint()
    settings = decode_settings(checkpoint, "static:1", schedule="adablock:0.30:7+5+7:8:8", generation_length=21)
    assert settings.config.schedule == "adablock:0.3:5+7"
    assert settings.note.startswith(
        "blocks of at most 8 (the length that tiny was trained for) under adablock:0.3:5+7,"
    )
    assert decode_settings(checkpoint, "static:1").config.schedule is None


def test_newline_stands_for_all_tokens_that_end_a_line():
    checkpoint = tiny_checkpoint(tokenizer=_Lines("a", "\n", "}\n", "\n b", "\n\n"))
    assert decode_settings(checkpoint, schedule="adablock:0.3:newline:4").config.schedule == "adablock:0.3:1+2+4:4"
    refused(tiny_checkpoint(), "no tokenizer .* give their ids", schedule="adablock:0.3:newline")
    none = tiny_checkpoint(tokenizer=_Lines("a", "b"))
    refused(none, "no token of tiny ends a line", schedule="adablock:0.3:newline")


def test_a_schedule_is_refused_where_it_has_no_meaning(families):
    refused(tiny_checkpoint(), "delimiter 9999 of .* outside the vocabulary", schedule="adablock:0.3:5+9999:4")
    refused(families["sdar"], "block-causal attention, .* no schedule", schedule="adablock:0.3:5")
    with pytest.raises(ScheduleError, match="window of 64 positions"):
        decode_settings(families["llada"], schedule="adablock:0.3:5:16:64")
