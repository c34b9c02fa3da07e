"""The vocabulary of the bundled model: one token per symbol, a mask token, and end-of-text.

Digits, letters and the newline are one token each, so a model of a few million parameters need not learn to spell, and
a draft names exactly the things a reader sees. The committed weights know the first symbols only; the symbols of later
domains follow them, so that an id means the same everywhere.
"""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrate.bundled.answers import END
from scripts.bundled_model.tasks import FIRST_SYMBOLS, SYMBOLS

EOS, MASK = END, "<|mask|>"
#: Identifiers are positions in this tuple and must not change: the committed weights depend on them.
FIRST_VOCABULARY = (EOS, MASK, *FIRST_SYMBOLS)
VOCABULARY = (EOS, MASK, *SYMBOLS)
EOS_ID, MASK_ID = 0, 1


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: split at single spaces, look pieces up. An unknown symbol is an error."""
    core = Tokenizer(models.WordLevel({symbol: index for index, symbol in enumerate(VOCABULARY)}))
    # A plain space, not `Whitespace`: the newline is a symbol and has to survive.
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def encode_symbols(text: str) -> list[int]:
    """Encode without the tokenizers library; the training stream calls this a million times."""
    return [_INDEX[symbol] for symbol in text.split(" ")]


_INDEX = {symbol: index for index, symbol in enumerate(VOCABULARY)}


def write_tokenizer(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save_pretrained(str(directory))
