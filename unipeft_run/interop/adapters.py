"""Load checkpoints of the `adapters` library, version 1.3, as models with our deltas.

Their parallel adapters read the residual stream, and their prefixes leave the tokens' positions as
they are. Dropout inside an adapter acts here after the activation, there on the scaled output.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.messages import unknown_choice
from unipeft_run.deltas.attach import child_name, freeze, reattach
from unipeft_run.deltas.delta import Delta
from unipeft_run.interop.adapters_names import MODULES, locate, rename, tensors_of
from unipeft_run.interop.adapters_options import read_parts
from unipeft_run.interop.adapters_slots import Part, build_parts
from unipeft_run.interop.tensors import (
    RemainingTensors,
    cast,
    find_dtype,
    load_backbone_tensors,
)

Options = Mapping[str, Any]


def from_adapters(options: Options, config: Any, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the transformers model of `config`, with our deltas and every tensor loaded.

    Args:
        options: the configuration of the adapter, as `AdapterConfig.to_dict` returns it; missing
            options take the library's defaults.
        config: a transformers configuration.
        state: the backbone's tensors under transformers' names, and those of the adapter under
            their names in `adapters`, for an adapter called `a`. The shared prefix generator is
            called `prefix_pool.a.<location>`.

    The deltas are trainable, and the classifier of BERT and ViT, as in `adapters`. Raises
    ValueError for an option or a tensor that it cannot take.
    """
    config = deepcopy(config)  # attaching names our attention in it
    table = family_of(config)
    if table.name not in MODULES:
        raise ValueError(unknown_choice("family", table.name, MODULES))
    parts = [part for kind, own in read_parts(options) for part in build_parts(kind, own, table)]
    _check_places(parts)
    model: Any = getattr(transformers, table.model)(config)
    cast(model, find_dtype(state), model.buffers())
    remaining = RemainingTensors({rename(name, table): t for name, t in state.items()})
    load_backbone_tensors(model, remaining)
    freeze(model, table.head)
    used: set[str] = set()
    reattach(model, list(_build_deltas(model, table, parts, remaining, used)))
    if unexpected := sorted(remaining.keys() - used):
        raise ValueError(f"unexpected tensor {unexpected[0]}")
    return model.eval()  # type: ignore[no-any-return]


def _check_places(parts: list[Part]) -> None:
    """Raise ValueError if two parts of a union change the same place."""
    for name, count in Counter(part.name for part in parts).items():
        if count > 1:
            raise ValueError(f"two parts of the union change the same place ({name})")


def _build_deltas(
    model: Any, table: Family, parts: list[Part], state: RemainingTensors, used: set[str]
) -> Iterator[tuple[str, Delta]]:
    """Yield path and loaded delta of every site; add the names of the tensors to `used`."""
    shared: dict[str, Any] = {}
    for part in parts:
        sites = list(find_sites(model, model.config, **dict(part.slot.representation)))
        places = locate(model, table, sites, part.left_out)
        for site, place in zip(sites, places, strict=True):
            if place is None:
                continue
            delta = part.slot.build(replace(site, model_shared=shared)).to(model.dtype)
            for tensor in tensors_of(delta, place, part.matrices):
                tensor.load(state[tensor.name])
                used.add(tensor.name)
            yield f"{site.write.path}.{child_name(part.name, site)}", delta
