"""A random batch with which two versions of a model are compared."""

from typing import Any

import torch

from unipeft_run.backbones.families import head_patterns
from unipeft_run.backbones.family import Family


def make_probe(model: Any, table: Family) -> dict[str, torch.Tensor]:
    """Make a random batch of two examples, whose texts end with an end token, one of them padded.

    Only the first one for a decoder's classifier without a padding token. For multiple choice, they
    are the two choices of one example. The first output for it is the logits.
    """
    generator = torch.Generator().manual_seed(0)
    batch: dict[str, torch.Tensor] = {}
    for name, stack in table.stacks.items():
        part = stack.part(model.config)
        if name == "vision" or table.task_type == "image_classification":
            shape = (2, part.num_channels, part.image_size, part.image_size)
            batch["pixel_values"] = torch.randn(shape, generator=generator, dtype=model.dtype)
        elif "input_ids" not in batch:
            batch |= _make_text(part, generator)
    if table.task_type == "seq2seq":
        batch["decoder_input_ids"] = batch["input_ids"]
    if _compares_choices(model):
        batch = {name: tensor[None] for name, tensor in batch.items()}
    rows = 1 if _needs_one_row(model, table) else 2
    return {name: tensor[:rows].to(model.device) for name, tensor in batch.items()}


def _compares_choices(model: Any) -> bool:
    """Return whether a model takes the choices of an example as one more dimension, [B, C, T]."""
    return any(cls.__name__.endswith("ForMultipleChoice") for cls in type(model).__mro__)


def _needs_one_row(model: Any, table: Family) -> bool:
    """Return whether a decoder's classifier would look for a padding token that is not set."""
    has_head = table.task_type == "causal" and bool(head_patterns(model))
    return has_head and model.config.pad_token_id is None


def _make_text(config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    ends = getattr(config, "eos_token_id", None) or 0
    ends = ends if isinstance(ends, list) else [ends]
    pad, end = (min(token or 0, config.vocab_size - 1) for token in (config.pad_token_id, ends[0]))
    words = torch.tensor([i for i in range(config.vocab_size) if i not in (pad, end, *ends)])
    ids = words[torch.randint(len(words), (2, 9), generator=generator)]
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = pad, 0
    ids[0, 8] = ids[1, 5] = end  # the classifier of BART and the text tower of CLIP read there
    return {"input_ids": ids, "attention_mask": mask}
