"""The text encoder treats control tokens in texts as text, and otherwise equals the tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_text
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import MBartTokenizer, PreTrainedTokenizerFast

from unipeft_run.data.encoding import tokenizer_hash
from unipeft_run.data.text_encoder import TextEncoder, check_length, shortest_length
from unipeft_run.errors import UserError

CONTROL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "ro_RO", "en_XX"]
ORDINARY = [
    *tiny_text.TEXT,
    "",
    " ",
    "  two  spaces\tand\na line ",
    "a < b > c </ s> [CLS] <S> ro_ro",
    "\u0219i \u021bar\u0103, na\u00efve \u4e2d\u6587 \U0001f600 e\u0301",
    "word " * 60,
]


def word_level() -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary has whole words, including control tokens."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "the", "cat"]
    vocab = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{name}_token": f"<{name}>" for name in ("unk", "pad", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **names
    )


def sentencepiece() -> MBartTokenizer:
    """Build a tokenizer like mBART's: a Unigram model with control tokens in its vocabulary."""
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = sorted(set("".join([*tiny_text.TEXT, *CONTROL])) - {" "})
    pieces = ["\u2581", "\u2581the", "\u2581cat", *letters]
    return MBartTokenizer(vocab=[*special, *((piece, -3.0) for piece in pieces)])


TOKENIZERS: dict[str, Any] = {
    "bart": tiny_text.bart_tokenizer,
    "mbart": lambda: tiny_text.bart_tokenizer(tiny_text.CODES),
    "sentencepiece": sentencepiece,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def specials(tokenizer: Any) -> set[int]:
    """Return the ids of all control tokens except the unknown one."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("special", [True, False])
def test_ordinary_texts_are_encoded_as_by_the_tokenizer(
    side: str, special: bool, tokenizer: Any
) -> None:
    tokenizer.truncation_side = side
    own = tokenizer(ORDINARY, truncation=True, max_length=32, add_special_tokens=special)
    encoded = TextEncoder(tokenizer).encode(ORDINARY, max_length=32, special=special)
    assert encoded == own["input_ids"]


def test_ordinary_pairs_are_encoded_as_by_the_tokenizer(tokenizer: Any) -> None:
    second = ORDINARY[::-1]
    own = tokenizer(ORDINARY, second, truncation=True, max_length=24)["input_ids"]
    assert TextEncoder(tokenizer).encode(ORDINARY, second, max_length=24) == own


@pytest.mark.parametrize("token", CONTROL)
def test_a_control_token_in_a_text_is_spelt_out(token: str, tokenizer: Any) -> None:
    text = f"the {token} cat{token}"
    (ids,) = TextEncoder(tokenizer).encode([text], max_length=99, special=False)
    assert not specials(tokenizer) & set(ids)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).strip() == text
    pair, template = TextEncoder(tokenizer).encode([text, ""], [text, ""], max_length=99)
    assert [number for number in pair if number in specials(tokenizer)] == template


def test_full_width_brackets_do_not_normalise_into_a_control_token() -> None:
    tokenizer = sentencepiece()
    (ids,) = TextEncoder(tokenizer).encode(["\uff1cs\uff1e"], max_length=9, special=False)
    assert not specials(tokenizer) & set(ids)


def test_control_tokens_in_a_word_level_vocabulary_become_unknown() -> None:
    tokenizer = word_level()
    encoder = TextEncoder(tokenizer)
    (ids,) = encoder.encode(["the </s> cat <mask> <unk>"], max_length=9, special=False)
    unknown = tokenizer.unk_token_id
    assert ids == [5, unknown, 6, unknown, unknown]


def test_a_language_code_added_as_an_ordinary_token_is_covered() -> None:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.add_tokens(["ro_RO"])
    code = tokenizer.convert_tokens_to_ids("ro_RO")
    assert code in tokenizer("the ro_RO cat")["input_ids"]
    (ids,) = TextEncoder(tokenizer, codes=["ro_RO"]).encode(["the ro_RO cat"], max_length=99)
    assert code not in ids


def test_added_words_keep_their_ids() -> None:
    tokenizer = tiny_text.bart_tokenizer(tiny_text.CODES)
    tokenizer.add_tokens(["weather", AddedToken("blue sky", lstrip=True)])
    text = "the weather under a blue sky"
    encoded = TextEncoder(tokenizer).encode([text], max_length=99)
    assert encoded == tokenizer([text])["input_ids"]
    assert tokenizer.convert_tokens_to_ids("weather") in encoded[0]


def test_a_word_of_the_vocabulary_made_special_stays_a_word() -> None:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["the"]})
    (ids,) = TextEncoder(tokenizer).encode(["the cat"], max_length=99)
    assert tokenizer.decode(ids) == "<s>the cat</s>"


def test_the_tokenizer_is_left_as_it_is(tokenizer: Any) -> None:
    before, ids = tokenizer_hash(tokenizer), tokenizer("the </s>")["input_ids"]
    TextEncoder(tokenizer).encode(["the </s>"], max_length=3)
    assert tokenizer_hash(tokenizer) == before
    assert tokenizer("the </s>")["input_ids"] == ids


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"Slow.*tokenizer.json"):
        TextEncoder(Slow())  # type: ignore[arg-type]


def test_the_shortest_length_leaves_a_token_for_each_text() -> None:
    tokenizer = tiny_text.bart_tokenizer()
    assert (shortest_length(tokenizer), shortest_length(tokenizer, pair=True)) == (3, 6)
    encoder = TextEncoder(tokenizer)
    for number, length in enumerate(encoder.encode(["cat sat"], ["dog sat"], max_length=6)[0]):
        assert (length in specials(tokenizer)) == (number not in (1, 4))
    check_length("task.max_source_length", 3, 3)
    with pytest.raises(UserError, match=r"task.max_source_length=2 .* at least 3"):
        check_length("task.max_source_length", 2, 3)
