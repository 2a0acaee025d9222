"""Generate with transformers, for models that our own search does not support."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from unipeft_run.backbones.families import FAMILIES, family_of
from unipeft_run.deltas.gates import find_averaging
from unipeft_run.evaluation.generation.attention import IMPLEMENTATIONS
from unipeft_run.evaluation.generation.settings import Settings
from unipeft_run.training.distributed.parallel import is_sharded

log = logging.getLogger(__name__)


def find_obstacle(model: Any) -> str | None:
    """Say why our own search does not support this model; None if it does."""
    config = model.config
    if is_sharded(model):
        return "its parameters are sharded"
    if not any(family.fits(config) for family in FAMILIES.values() if "decoder" in family.stacks):
        return f"the family {config.model_type} is not supported"
    if config._attn_implementation not in IMPLEMENTATIONS:
        return f"the attention implementation {config._attn_implementation} is not supported"
    return None


def is_recomputed(model: Any) -> bool:
    """Return whether a delta of the decoder reads later positions, so that a cache is wrong."""
    averaging = find_averaging(model)
    if not averaging:
        return False
    decoder = family_of(model.config).stacks["decoder"].path
    return any(path.startswith(f"{decoder}.") for path in averaging)


def generate_with_transformers(
    model: Any, input_ids: Tensor, attention_mask: Tensor, settings: Settings, obstacle: str
) -> Tensor:
    """Call `model.generate`, and log the reason and the rules."""
    note = "" if settings.num_beams == 1 else ", under the beam-search rules of transformers"
    log.info("Generating through transformers%s: %s.", note, obstacle)
    config = settings.to_generation_config()
    config.use_cache = not is_recomputed(model)
    with _replaced_generation_config(model, config):
        tokens = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=config,
            synced_gpus=is_sharded(model),
        )
    assert isinstance(tokens, Tensor)
    return tokens


@contextmanager
def _replaced_generation_config(model: GenerationMixin, config: GenerationConfig) -> Iterator[None]:
    """Keep transformers from completing `config` with the model's own generation settings."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
