"""Load a backbone from the folder or hub id that `locate` found, or initialise it randomly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import transformers
from torch import Tensor, nn

from unipeft_run.backbones.families import FAMILIES, family_of
from unipeft_run.backbones.files import reporting
from unipeft_run.backbones.model_config import read_config
from unipeft_run.backbones.shapes import shapes_of, size_of
from unipeft_run.backbones.tokenizer import load_tokenizer as load_tokenizer
from unipeft_run.backbones.weights import check_numbers, read_weights
from unipeft_run.errors import UserError


def load_backbone(
    source: str,
    *,
    family: str,
    weights: str = "pretrained",
    num_labels: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the transformers model of `family` from `source`, in float32 and eval mode.

    `weights="random"` builds it from its configuration alone; `num_labels` sizes a classifier;
    `config` overrides fields of the configuration. No code in `source` is executed. Raises
    UserError for a source that is damaged, or that lacks weights other than the classifier's.
    """
    loaded = read_config(source, family, config or {}, num_labels)
    cls = getattr(transformers, FAMILIES[family].model)
    with reporting(source), _quiet():
        if weights == "random":
            return cls(loaded).eval()  # type: ignore[no-any-return]
        tensors = read_weights(source)
        _check_size(source, loaded, tensors)
        model, report = cls.from_pretrained(  # reads no file: everything is given
            None,
            config=loaded,
            state_dict=tensors,
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a classifier's; `_refuse_random` reports others
        )
        check_numbers(tensors, {name for name, _ in model.named_parameters()}, source)
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    _refuse_random(source, model, fresh, FAMILIES[family].head)
    return model.eval()  # type: ignore[no-any-return]


def check_lengths(lengths: Iterable[tuple[str, int]], config: Any) -> None:
    """Raise UserError if a length in tokens exceeds the backbone's positions.

    `lengths` holds each length with the key that sets it.
    """
    before = family_of(config).positions_from
    positions = config.max_position_embeddings - (getattr(config, before) + 1 if before else 0)
    for key, length in lengths:
        if length > positions:
            raise UserError(f"{key}: {length} tokens, but this backbone has {positions} positions")


def _check_size(source: str, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse sizes far beyond the stored weights, before memory for them is allocated."""
    wanted, stored = size_of(shapes_of(config)), sum(t.numel() for t in tensors.values())
    if wanted > 2 * stored + 10**8:  # a new classifier is smaller
        raise UserError(
            f"{source}: the configuration describes {wanted:,} parameters, "
            f"the weights hold {stored:,}"
        )


def _refuse_random(source: str, model: nn.Module, fresh: set[str], head: Sequence[str]) -> None:
    """Raise UserError if `fresh`, the parameters missing from the source, exceed the `head`."""
    random = [
        name
        for name, _ in model.named_parameters()
        if name in fresh and not any(fnmatchcase(name, pattern) for pattern in head)
    ]
    if random:
        raise UserError(
            f"{source} lacks {len(random)} weights of the model, such as {random[0]}, "
            "or holds them in another shape"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' loading report and progress bar; our checks cover the report."""
    words = transformers.utils.logging
    verbosity = words.get_verbosity()
    words.set_verbosity_error()
    words.disable_progress_bar()
    try:
        yield
    finally:
        words.set_verbosity(verbosity)
        words.enable_progress_bar()
