"""Prompt files: what is read, and one clear message for each way to get them wrong."""

import json
import os
import random

import pytest

from calibrate.bundled import DOMAINS
from calibrate.prompts.encoding import encode_prompts, prompt_hash, prompt_set_hash
from calibrate.prompts.prompt import SPLITS, Prompt, PromptError
from calibrate.prompts.source import SplitFraction, has_splits, load_all_splits, load_prompt_set, read_prompts


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
        ('["a"]', "line 2: expected a JSON object, found a list of 1"),
        (
            '{"text": "x", "id": 1}',
            r"line 2: expected the key 'prompt' \(text\) or 'tokens' \(ids\), found \"id\", \"text\"",
        ),
        ('{"prompt": ""}', "line 2: 'prompt' must be text that is not empty, found \"\""),
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


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Opening a FIFO that nobody writes to blocks for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PromptError, match="pipe is a pipe or a device and cannot be read; give a JSONL file"):
        read_prompts(tmp_path / "pipe")


def test_a_line_nested_too_deeply_is_refused(file):
    write(file, '{"prompt": "x", "more": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(PromptError, match="line 1: not valid JSON"):
        read_prompts(file)


def test_what_a_message_repeats_of_a_prompt_is_harmless_on_a_terminal(file):
    """An id may hold a newline and an escape sequence, and may be as long as it likes."""
    name = "a\nerror: gone\x1b[2J" + "x" * 10_000
    for record in ({"id": name, "tokens": [99]}, {"id": name, "prompt": "ABC"}, {"id": name, "tokens": [1], name: 2}):
        write(file, record)
        with pytest.raises(PromptError) as error:
            encode_prompts(read_prompts(file), Letters(), 26, mask_token_id=1)
        assert str(error.value).isprintable() and len(str(error.value)) < 300
    write(file, {name: "no prompt"})
    with pytest.raises(PromptError) as error:
        read_prompts(file)
    assert str(error.value).isprintable() and len(str(error.value)) < 300 + len(str(file))


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
        every = len(DOMAINS)
        some = load_prompt_set("bundled", split, limit=4 * every)
        assert [prompt.domain for prompt in some] == 4 * sorted(DOMAINS)
        for number, domain in enumerate(sorted(DOMAINS)):
            one = load_prompt_set(f"bundled/{domain}", split)
            assert {prompt.domain for prompt in one} == {domain}
            assert one[:4] == some[number::every]


def test_some_of_the_bundled_domains_take_turns_in_one_order():
    found = load_prompt_set("bundled/lists+code", "test", limit=4)
    assert [prompt.domain for prompt in found] == ["code", "lists", "code", "lists"]
    assert found[::2] == load_prompt_set("bundled/code", "test", limit=2)
    for same in ("bundled/code+lists", "bundled/lists+code+lists"):
        assert load_prompt_set(same, "test", limit=4) == found


def test_unknown_splits_and_domains_are_refused():
    with pytest.raises(PromptError, match='unknown split "train", expected one of calibration, validation, test'):
        load_prompt_set("bundled", "train")
    with pytest.raises(PromptError, match='the bundled prompts have no domain "poems", expected one of '):
        load_prompt_set("bundled/poems")
    with pytest.raises(PromptError, match='have no domain "poems", expected one of '):
        load_prompt_set("bundled/lists+poems")
    with pytest.raises(PromptError, match='have no domain "", expected one of '):
        load_prompt_set("bundled/lists+")


def test_a_folder_called_bundled_does_not_hide_the_bundled_prompts(tmp_path, monkeypatch):
    (tmp_path / "bundled").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_prompt_set("bundled", "test", limit=3)) == 3


# ---------------------------------------------------------------- splits of files


def ids(prompts):
    return [prompt.id for prompt in prompts]


def test_a_file_may_name_the_split_of_each_prompt(file):
    write(file, *({"prompt": f"p{k}", "id": k, "split": "test" if k % 3 == 0 else "calibration"} for k in range(6)))
    assert has_splits(file)
    assert ids(load_prompt_set(file, "test")) == ["0", "3"]
    assert ids(load_prompt_set(file)) == ids(load_prompt_set(file, "calibration")) == ["1", "2", "4", "5"]
    assert ids(load_prompt_set(file, default="test")) == ["0", "3"]
    assert len(load_all_splits(file)) == 6
    with pytest.raises(PromptError, match='has no split "nonsense"; its lines name "calibration", "test"'):
        load_prompt_set(file, "nonsense")
    with pytest.raises(PromptError, match="names the split of every prompt itself; leave --split-fraction out"):
        load_prompt_set(file, "test", fraction="0.5")
    write(file, {"prompt": "a", "split": "test"}, {"prompt": "b", "id": "bare"})
    with pytest.raises(PromptError, match='prompt "bare" names no split, others do'):
        load_prompt_set(file, "test")
    write(file, {"prompt": "a", "split": 3})
    with pytest.raises(PromptError, match="line 1: 'split' must be a name such as \"test\", found 3"):
        load_prompt_set(file, "test")


@pytest.mark.parametrize("split", ["test", "nonsense"])
def test_a_file_without_splits_has_none_to_take(file, split):
    """Until a file was refused here, `--split test` took the search prompts again without a word."""
    write(file, *({"prompt": f"p{k}"} for k in range(4)))
    assert not has_splits(file)
    assert len(load_prompt_set(file)) == len(load_prompt_set(file, default="test")) == 4
    with pytest.raises(PromptError, match=f'names no splits, so it has no split "{split}"; give every line a'):
        load_prompt_set(file, split)


def test_a_fraction_cuts_a_file_by_what_the_prompts_say(file):
    lines = [{"prompt": f"p{k}", "id": k} for k in range(20)]
    fraction = "validation=0.1,test=0.25,seed=3"
    cuts = []
    for order in range(3):
        random.Random(order).shuffle(lines)
        write(file, *lines, lines[0])  # one prompt stands twice
        cuts.append({split: load_prompt_set(file, split, fraction=fraction) for split in SPLITS})
    texts = [{split: [prompt.text for prompt in part] for split, part in cut.items()} for cut in cuts]
    assert texts[0] == texts[1] == texts[2]
    assert [len(texts[0][split]) for split in SPLITS] == [13, 2, 5]
    assert sorted(text for part in texts[0].values() for text in part) == sorted(line["prompt"] for line in lines)
    assert load_prompt_set(file, fraction=fraction) == cuts[-1]["calibration"]
    other = [prompt.text for prompt in load_prompt_set(file, "test", fraction="0.25,seed=4")]
    assert len(other) == 5 and set(other) != set(texts[0]["test"])
    assert SplitFraction.parse("0.25") == SplitFraction(validation=0.0, test=0.25, seed=0)
    with pytest.raises(PromptError, match='unknown split "nonsense", expected one of calibration, validation, test'):
        load_prompt_set(file, "nonsense", fraction=fraction)
    with pytest.raises(PromptError, match="leaves no validation prompt of"):
        load_prompt_set(file, "validation", fraction="0.5")
    with pytest.raises(PromptError, match="brings splits of its own"):
        load_prompt_set("bundled", "test", fraction="0.5")


@pytest.mark.parametrize("text", ["", "x", "test", "test=", "train=0.5", "0", "1", "-0.1", "nan", "1.5", "seed=1",
                                  "validation=0.5,test=0.5", "0.5,seed=-1", "0.5,seed=1.5"])  # fmt: skip
def test_a_fraction_that_cannot_be_read_is_refused(text):
    with pytest.raises(PromptError, match="--split-fraction"):
        SplitFraction.parse(text)


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
    with pytest.raises(PromptError, match=r"prompt \"7\" is a text, but the model has no tokenizer; give"):
        encode_prompts([Prompt("7", text="a")], None, 26)
    with pytest.raises(PromptError, match=r"prompt \"7\" gives no tokens"):
        encode_prompts([Prompt("7", text="ABC")], Letters(), 26)
    with pytest.raises(PromptError, match=r"prompt \"7\" holds token id 26; the vocabulary has 26"):
        encode_prompts([Prompt("7", tokens=(1, 26, 2))], None, 26)


def test_the_hash_of_a_set_depends_on_ids_and_order():
    assert prompt_set_hash([(1, 2), (3,)]) == prompt_set_hash([[1, 2], [3]])
    different = {
        prompt_set_hash(ids) for ids in ([(1, 2), (3,)], [(3,), (1, 2)], [(1, 2, 3)], [(1,), (2, 3)], [(12,), (3,)])
    }
    assert len(different) == 5


def test_the_hash_of_a_prompt_depends_on_its_ids_alone():
    assert prompt_hash((1, 2)) == prompt_hash([1, 2])
    assert len({prompt_hash(one) for one in ([1, 2], [2, 1], [12], [1], [1, 2, 3])}) == 5
    assert len(prompt_hash([1, 2])) == 16
