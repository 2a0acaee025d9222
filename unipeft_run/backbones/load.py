"""A backbone from what `locate` found, or random."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import transformers
from torch import nn

from unipeft_run.backbones.architectures import in_a_sentence, read_config
from unipeft_run.backbones.sites import TABLES
from unipeft_run.errors import UserError


def load_backbone(
    source: str,
    *,
    family: str,
    weights: str = "pretrained",
    num_labels: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The transformers model of `family` from `source`, in float32 and eval mode.

    `weights="random"` builds it from its configuration alone; `num_labels` sizes a classifier;
    `config` overrides fields of the configuration. Raises UserError for a source that is damaged,
    or that lacks weights other than the classifier's.
    """
    changes = {**(config or {}), **({"num_labels": num_labels} if num_labels else {})}
    loaded = read_config(source, family, changes)
    cls = getattr(transformers, TABLES[family].model)
    if weights == "random":
        return cls(loaded).eval()  # type: ignore[no-any-return]
    with readable(source):
        model, report = cls.from_pretrained(
            source,
            config=loaded,
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a classifier's; of others `_refuse_random` knows
        )
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    _refuse_random(source, model, fresh, TABLES[family].head)
    return model.eval()  # type: ignore[no-any-return]


def load_tokenizer(source: str) -> Any:
    """The tokenizer that belongs to `source`. Raises UserError for a source that is damaged."""
    with readable(source):
        return transformers.AutoTokenizer.from_pretrained(source)


def check_lengths(lengths: Iterable[tuple[str, int]], config: Any) -> None:
    """Raise UserError for the key of a length in tokens that is over the backbone's positions."""
    before = TABLES[config.model_type].positions_from
    positions = config.max_position_embeddings - (getattr(config, before) + 1 if before else 0)
    for key, length in lengths:
        if length > positions:
            raise UserError(f"{key}: {length} tokens, but this backbone has {positions} positions")


def _refuse_random(source: str, model: nn.Module, fresh: set[str], head: Sequence[str]) -> None:
    """Raise UserError if of the `fresh` parameters, not in the source, some are not the head's."""
    random = [
        name
        for name, _ in model.named_parameters()
        if name in fresh and not any(fnmatchcase(name, pattern) for pattern in head)
    ]
    if random:
        raise UserError(f"{source} lacks {len(random)} weights of the model, {random[0]} for one")


@contextmanager
def readable(source: str) -> Iterator[None]:
    """`in_a_sentence`, without transformers' own report and progress bar.

    What matters of the report is a UserError too.
    """
    words = transformers.utils.logging
    verbosity = words.get_verbosity()
    words.set_verbosity_error()
    words.disable_progress_bar()
    try:
        with in_a_sentence(source):
            yield
    finally:
        words.set_verbosity(verbosity)
        words.enable_progress_bar()
