"""Load a tokenizer from its vocabulary files, with a class from the family's table.

transformers' own loader reads more from the folder: `auto_map`, names of other files, chat
templates. It is therefore given a copy with only the vocabulary and the allowed settings.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unipeft_run.backbones.family import Family
from unipeft_run.backbones.files import convert_errors, find_file, read_object
from unipeft_run.backbones.model_config import family_in, find_config, read_model_json
from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError

GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # tokenizer.json alone
SETTINGS, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
VOCABULARY = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    "added_tokens.json",
)
TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "cls_token",
    "pad_token",
    "mask_token",
    "additional_special_tokens",
    "extra_special_tokens",
)
ALLOWED = (
    *TOKENS,
    "added_tokens_decoder",
    "add_prefix_space",
    "clean_up_tokenization_spaces",
    "errors",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "src_lang",
    "tgt_lang",
    "trim_offsets",
    "truncation_side",
)


def load_tokenizer(source: str) -> Any:
    """Load the tokenizer of `source`, a folder or hub id. No code in `source` is executed.

    Raises UserError for a damaged source and for a tokenizer of another class.
    """
    import transformers

    file = find_config(source)
    content = read_model_json(file)
    family = family_in(content, file)
    with convert_errors(source):
        settings, special = _read(source, SETTINGS), _read(source, SPECIAL)
        named = settings.get("tokenizer_class") or content.get("tokenizer_class")
        cls = getattr(transformers, _class_name(named, family, source))
        with _vocabulary_only(source, settings, special) as folder:
            tokenizer = cls.from_pretrained(folder)
    tokenizer.name_or_path = source
    return tokenizer


def _read(source: str, name: str) -> dict[str, Any]:
    file = find_file(source, name)
    content = read_object(file) if file else {}
    if content.get("auto_map"):
        raise UserError(f"{file}: auto_map asks for code from the model folder, which is never run")
    return content


def _class_name(named: Any, family: Family, source: str) -> str:
    """Return the transformers class for the name in the folder; it defaults to the family's."""
    own = (family.tokenizer, *family.tokenizer_names)
    if named is None or (isinstance(named, str) and named.removesuffix("Fast") in own):
        return family.tokenizer
    if named in GENERIC:
        return GENERIC[0]
    raise UserError(
        f"{source}: tokenizer_class={shorten(named)} is not supported for {family.name}; "
        f"choose from {', '.join((*own, *GENERIC))}"
    )


@contextmanager
def _vocabulary_only(
    source: str, settings: dict[str, Any], special: dict[str, Any]
) -> Iterator[str]:
    """Yield a temporary folder with links to the vocabulary and with the allowed settings."""
    with tempfile.TemporaryDirectory(prefix="unipeft-tokenizer-") as folder:
        for name in VOCABULARY:
            if file := find_file(source, name):
                (Path(folder) / name).symlink_to(file.absolute())
        for name, content, allowed in ((SETTINGS, settings, ALLOWED), (SPECIAL, special, TOKENS)):
            kept = {key: value for key, value in content.items() if key in allowed}
            (Path(folder) / name).write_text(json.dumps(kept), encoding="utf-8")
        yield folder
