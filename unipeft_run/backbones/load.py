"""Load a backbone from the folder or hub id that `locate` found, or initialise it randomly."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import transformers
from torch import Tensor, nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.files import convert_errors
from unipeft_run.backbones.model_config import get_field, read_config
from unipeft_run.backbones.quiet import no_loading_report
from unipeft_run.backbones.shapes import shapes_of, size_of
from unipeft_run.backbones.tokenizer import load_tokenizer as load_tokenizer
from unipeft_run.backbones.weights import check_types, read_weights
from unipeft_run.errors import UserError

UNLIMITED = 10**6  # positions of a backbone whose positions are relative


def load_backbone(
    source: str,
    *,
    family: str | None = None,
    weights: str = "pretrained",
    num_labels: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load the transformers model of `family` from `source`, in float32 and eval mode.

    `source` is a folder or hub id; `family` defaults to the one in its config.json.
    `weights="random"` initialises the model randomly from its configuration; `num_labels` sizes a
    classifier; `config` overrides fields of the configuration. No code in `source` is executed.
    Raises UserError for a source that is damaged or lacks weights other than the classifier's.
    """
    loaded = read_config(source, family, config or {}, num_labels)
    table = family_of(loaded)
    cls = getattr(transformers, table.model)
    with convert_errors(source), no_loading_report():
        if weights == "random":
            return cls(loaded).eval()  # type: ignore[no-any-return]
        tensors = read_weights(source)
        _check_size(source, loaded, tensors)
        model, report = cls.from_pretrained(  # reads no file: everything is passed in
            None,
            config=loaded,
            state_dict=tensors,
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # allowed in the classifier only, see below
        )
        check_types(tensors, {name for name, _ in model.named_parameters()}, source)
    initialised = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    _check_only_head(source, model, initialised, table.head)
    return model.eval()  # type: ignore[no-any-return]


def check_lengths(lengths: Iterable[tuple[str, int]], config: Any, occupied: int = 0) -> None:
    """Raise UserError if a length in tokens exceeds the backbone's positions.

    `lengths` holds pairs of a configuration key and the length that it sets; `occupied` is the
    number of positions that deltas take from the text.
    """
    positions = count_positions(config)
    taken = f", and the deltas take {occupied} of them" if occupied else ""
    for key, length in lengths:
        if length > positions - occupied:
            raise UserError(
                f"{key}: {length} tokens, but this backbone has {positions} positions{taken}"
            )


def check_tokens(tokenizer: Any, config: Any, largest: int) -> None:
    """Raise UserError if examples or padding have token ids outside the backbone's vocabulary.

    `largest`: the largest id in the examples. Other tokens may be outside: the mask token of
    bart-large-cnn is.
    """
    size: int = getattr(config, "text_config", config).vocab_size
    padding = -1 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    for name, number in (("padding token", padding), ("token", largest)):
        if number >= size:
            token = tokenizer.convert_ids_to_tokens(number)
            raise UserError(
                f"the tokenizer's {name} {token!r} has the id {number}, but the backbone's "
                f"vocabulary has only {size} entries (vocab_size={size})"
            )


def count_positions(config: Any) -> int:
    """Return the length of the longest input that a backbone takes, in tokens."""
    table = family_of(config)
    if table.max_positions is None:
        return UNLIMITED
    positions: int = get_field(config, table.max_positions)
    first = table.positions_from
    return positions - (getattr(config, first) + 1 if first else 0)


def _check_size(source: str, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for sizes far beyond the stored weights, before memory is allocated."""
    described, stored = size_of(shapes_of(config)), sum(t.numel() for t in tensors.values())
    if described > 2 * stored + 10**8:  # a new classifier is smaller
        raise UserError(
            f"{source}: the configuration describes {described:,} parameters, "
            f"the weights hold {stored:,}"
        )


def _check_only_head(
    source: str, model: nn.Module, initialised: set[str], head: Sequence[str]
) -> None:
    """Raise UserError if any randomly `initialised` parameter does not belong to the `head`."""
    missing = [
        name
        for name, _ in model.named_parameters()
        if name in initialised and not any(fnmatchcase(name, pattern) for pattern in head)
    ]
    if missing:
        raise UserError(
            f"{source} lacks {len(missing)} weights of the model, such as {missing[0]}, "
            "or holds them in another shape"
        )
