"""A random batch for any backbone, to compare the outputs of two models."""

from collections.abc import Iterator
from typing import Any

import torch

from unipeft_run.backbones.family import Family

LENGTH, PADDING = 9, 3  # tokens of the two examples, and how many of the second are padding


def make_probe(model: Any, table: Family) -> dict[str, torch.Tensor]:
    """Make a random batch of two examples; the second text is padded, both have an end token."""
    return {name: tensor.to(model.device) for name, tensor in _inputs(model, table)}


def _inputs(model: Any, table: Family) -> Iterator[tuple[str, torch.Tensor]]:
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    if table.task_type in ("image_classification", "retrieval"):
        part = getattr(config, "vision_config", config)
        shape = (2, part.num_channels, part.image_size, part.image_size)
        yield "pixel_values", torch.randn(shape, generator=generator, dtype=model.dtype)
    if table.task_type == "image_classification":
        return
    ids, mask = _texts(getattr(config, "text_config", config), generator)
    yield from (("input_ids", ids), ("attention_mask", mask))
    if table.task_type == "seq2seq":
        yield "decoder_input_ids", ids


def _texts(config: Any, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    pad, end = config.pad_token_id or 0, config.eos_token_id
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    ids = torch.randint(config.vocab_size, (2, LENGTH), generator=generator)
    for special in (pad, *ends):
        ids[ids == special] = (special + 1) % config.vocab_size
    mask = torch.ones_like(ids)
    ids[1, -PADDING:], mask[1, -PADDING:] = pad, 0
    for token in ends[:1]:  # BART's classifier and CLIP read the state there
        ids[0, -1] = ids[1, -PADDING - 1] = token
    return ids, mask
