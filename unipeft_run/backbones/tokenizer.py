"""Load a tokenizer from its vocabulary files, with a class from the family's table.

transformers' own loader reads more from the folder: `auto_map`, names of other files, chat
templates. It is therefore given a folder with links to the vocabulary files and with the allowed
settings only.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unipeft_run.backbones.family import Family
from unipeft_run.backbones.fields import FLAG, whole
from unipeft_run.backbones.files import convert_errors, find_file, read_object
from unipeft_run.backbones.model_config import family_in, find_config, read_model_json
from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError

GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # tokenizer.json alone
WHOLE = "tokenizer.json"
SETTINGS, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
VOCABULARY = (
    WHOLE,
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
OPTIONS = {  # arguments of the tokenizers' classes, each with its rule
    "add_bos_token": FLAG,
    "add_eos_token": FLAG,
    "do_lower_case": FLAG,
    "extra_ids": whole(0, 1_000),
    "legacy": FLAG,
    "split_special_tokens": FLAG,
    "strip_accents": FLAG,
    "tokenize_chinese_chars": FLAG,
}
ALLOWED = (
    *TOKENS,
    *OPTIONS,
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

    Raises UserError for a source without tokenizer, a damaged one and a tokenizer of another class.
    """
    import transformers

    file = find_config(source)
    content = read_model_json(file)
    family = family_in(content, file)
    with convert_errors(source):
        settings, special = _read(source, SETTINGS), _read(source, SPECIAL)
        _check_options(settings, source)
        named = settings.get("tokenizer_class") or content.get("tokenizer_class")
        cls = getattr(transformers, _class_name(named, family, source))
        with _vocabulary_only(source, settings, special) as folder:
            _check_vocabulary(cls, folder, source)
            tokenizer = cls.from_pretrained(folder)
    tokenizer.name_or_path = source
    return tokenizer


def _read(source: str, name: str) -> dict[str, Any]:
    file = find_file(source, name)
    content = read_object(file) if file else {}
    if content.get("auto_map"):
        raise UserError(f"{file}: auto_map asks for code from the model folder, which is never run")
    return content


def _check_options(settings: dict[str, Any], source: str) -> None:
    for name, rule in OPTIONS.items():
        value = settings.get(name)
        if value is not None and not rule.is_valid(value):
            raise UserError(
                f"{source}: {SETTINGS}: {name}={shorten(value)}: must be {rule.description}"
            )


def _class_name(named: Any, family: Family, source: str) -> str:
    """Return the transformers class for the name in the folder; it defaults to the family's."""
    own = (family.tokenizer, *family.tokenizer_names)
    name = family.tokenizer if named is None else named
    name = name.removesuffix("Fast") if isinstance(name, str) else name
    if named in GENERIC or (name == "LlamaTokenizer" and _is_byte_level(source)):
        return GENERIC[0]
    if name in own:
        return str(name)
    raise UserError(
        f"{source}: tokenizer_class={shorten(named)} is not supported for {family.name}; "
        f"choose from {', '.join((*own, *GENERIC))}"
    )


def _is_byte_level(source: str) -> bool:
    """Return whether tokenizer.json works on bytes, which LlamaTokenizer would ignore."""
    file = find_file(source, WHOLE)
    return file is not None and b'"ByteLevel"' in file.read_bytes()


def _check_vocabulary(cls: Any, folder: str, source: str) -> None:
    """Raise UserError if files of `cls` are missing: its vocabulary would be empty."""
    names = cls.vocab_files_names.items()
    own = [name for key, name in names if key != "tokenizer_file"]
    choices = [[WHOLE], own] if own else [[WHOLE]]
    if not any(all((Path(folder) / name).exists() for name in choice) for choice in choices):
        needed = ", or ".join(" and ".join(choice) for choice in choices)
        raise UserError(f"{source} has no tokenizer: it needs {needed}")


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
