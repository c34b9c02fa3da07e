"""Prompt files: what is read, and one clear message for each way to get them wrong."""

import json

import pytest

from calibrate.prompts.encoding import encode_prompts, prompt_set_hash
from calibrate.prompts.prompt import SPLITS, Prompt, PromptError
from calibrate.prompts.source import load_prompt_set, read_prompts


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "prompts.jsonl"


def test_texts_and_token_ids(file):
    write(file, {"prompt": "sort d a c"}, "", {"tokens": [3, 1, 2], "id": 17, "domain": "lists", "answer": "x"})
    assert read_prompts(file) == [
        Prompt(id="1", text="sort d a c"),
        Prompt(id="17", tokens=(3, 1, 2), domain="lists", answer="x"),
    ]


def test_lines_end_at_line_feeds_only(file):
    """U+2028, U+0085 and form feeds are legal inside JSON text, though Python's splitlines breaks there."""
    text = "a\u2028b\u0085c\u000bd"
    raw = json.dumps({"prompt": text}, ensure_ascii=False).replace("\\u000b", "\\u000b")
    file.write_bytes(raw.encode() + b"\r\n" + b'{"prompt": "second"}\r\n')
    assert [prompt.text for prompt in read_prompts(file)] == [text, "second"]


def test_a_byte_order_mark_is_skipped(file):
    file.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "first"}')
    assert read_prompts(file)[0].text == "first"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x"', "line 2: not valid JSON"),
        ("hello", "line 2: not valid JSON"),
        ('["a"]', "line 2: expected a JSON object, found list"),
        (
            '{"text": "x", "id": 1}',
            r"line 2: expected the key 'prompt' \(text\) or 'tokens' \(ids\), found \['id', 'text'\]",
        ),
        ('{"prompt": ""}', "line 2: 'prompt' must be text that is not empty, found ''"),
        ('{"prompt": "  "}', "line 2: 'prompt' must be text that is not empty"),
        ('{"prompt": 5}', "line 2: 'prompt' must be text that is not empty, found 5"),
        ('{"prompt": "a\\ud800"}', "line 2: 'prompt' holds half of a surrogate pair"),
        ('{"tokens": []}', "line 2: 'tokens' must be a list of token ids that is not empty"),
        ('{"tokens": "12"}', "line 2: 'tokens' must be a list of token ids"),
        ('{"tokens": [1, -2]}', "line 2: 'tokens' must be a list of token ids"),
        ('{"tokens": [1.0]}', "line 2: 'tokens' must be a list of token ids"),
        ('{"tokens": [true]}', "line 2: 'tokens' must be a list of token ids"),
    ],
)
def test_a_malformed_line_is_named(file, line, message):
    write(file, {"prompt": "fine"}, line)
    with pytest.raises(PromptError, match=rf"prompts.jsonl, {message}"):
        read_prompts(file)


@pytest.mark.parametrize("content", ["", "\n\n", "   \n"])
def test_an_empty_file_is_refused(file, content):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match="holds no prompt; expected one JSON object a line"):
        read_prompts(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"nowhere.jsonl does not exist; give a JSONL file or the word 'bundled'"):
        read_prompts(tmp_path / "nowhere.jsonl")


def test_a_folder_or_a_path_below_a_file_cannot_be_read(file, tmp_path):
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompts(tmp_path)
    write(file, {"prompt": "x"})
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompts(file / "inner.jsonl")


def test_another_encoding_is_refused(file):
    file.write_bytes('{"prompt": "Grüße"}'.encode("latin-1"))
    with pytest.raises(PromptError, match="is not UTF-8 text"):
        read_prompts(file)


# ---------------------------------------------------------------- prompt sets


def test_a_limit_keeps_the_first(file):
    write(file, *({"prompt": f"p{k}"} for k in range(5)))
    assert [prompt.text for prompt in load_prompt_set(file, limit=2)] == ["p0", "p1"]
    assert len(load_prompt_set(file, limit=50)) == len(load_prompt_set(str(file))) == 5


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(file, limit):
    write(file, {"prompt": "x"})
    with pytest.raises(PromptError, match=f"at least one prompt is needed, a limit of {limit} was asked for"):
        load_prompt_set(file, limit=limit)


def test_bundled_splits_hold_every_domain_in_every_cut():
    for split in SPLITS:
        some = load_prompt_set("bundled", split, limit=8)
        domains = {prompt.domain for prompt in some}
        assert len(domains) == 2
        assert {prompt.domain for prompt in some[:2]} == domains
        one = load_prompt_set(f"bundled/{some[0].domain}", split)
        assert {prompt.domain for prompt in one} == {some[0].domain}
        assert one[:4] == some[::2]


def test_unknown_splits_and_domains_are_refused():
    with pytest.raises(PromptError, match="unknown split 'train', expected one of calibration, validation, test"):
        load_prompt_set("bundled", "train")
    with pytest.raises(PromptError, match="the bundled prompts have no domain 'poems', expected one of "):
        load_prompt_set("bundled/poems")


def test_a_folder_called_bundled_does_not_hide_the_bundled_prompts(tmp_path, monkeypatch):
    (tmp_path / "bundled").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_prompt_set("bundled", "test", limit=3)) == 3


# ---------------------------------------------------------------- token ids


class Letters:
    """A tokenizer: one id a lower-case letter, nothing for the rest."""

    def __call__(self, text, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [ord(c) - ord("a") for c in text if c.islower()]}


def test_texts_go_through_the_tokenizer_and_ids_do_not():
    prompts = [Prompt("a", text="bad"), Prompt("b", tokens=(25, 7)), Prompt("c", text="zz", tokens=(1,))]
    assert encode_prompts(prompts, Letters(), 26) == [(1, 0, 3), (25, 7), (1,)]


def test_prompts_that_give_no_usable_ids_are_refused():
    with pytest.raises(PromptError, match="prompt 7 is a text, but the model has no tokenizer; give 'tokens' instead"):
        encode_prompts([Prompt("7", text="a")], None, 26)
    with pytest.raises(PromptError, match="prompt 7 gives no tokens"):
        encode_prompts([Prompt("7", text="ABC")], Letters(), 26)
    with pytest.raises(PromptError, match="prompt 7 holds token id 26; the vocabulary has 26"):
        encode_prompts([Prompt("7", tokens=(1, 26, 2))], None, 26)


def test_the_hash_of_a_set_depends_on_ids_and_order():
    assert prompt_set_hash([(1, 2), (3,)]) == prompt_set_hash([[1, 2], [3]])
    different = {
        prompt_set_hash(ids) for ids in ([(1, 2), (3,)], [(3,), (1, 2)], [(1, 2, 3)], [(1,), (2, 3)], [(12,), (3,)])
    }
    assert len(different) == 5
