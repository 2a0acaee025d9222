"""The names of our deltas' parameters in `adapters`, for an adapter called `a`."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site
from unipeft_run.deltas.compositions import Composition, LearnedScale
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.factors import Factors
from unipeft_run.deltas.forms.hypercomplex import Hypercomplex
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.gates import GatedMemory, InputGate
from unipeft_run.interop.tensors import check_shape, fill

PROMPT = "prompt_tuning.prompt_tunings.a.prompt_embedding.weight"
RULES = "shared_parameters.a.phm_rule"
_LAYER = ("attention_adapters.adapters.a", "output_adapters.adapters.a")
_BERT = ("attention.output.adapters.a", "output.adapters.a")
# family -> modules of the attention and the feed-forward adapter below a layer
MODULES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2", "clip"), _LAYER),
    **dict.fromkeys(("bert", "roberta"), _BERT),
    **dict.fromkeys(("t5", "t5_gated"), ("{block}.adapters.a", "{ffn}.adapters.a")),
    "vit": ("attention_adapters.adapters.a", "output.output_adapters.adapters.a"),
}
# family -> (pattern, replacement) from the names of transformers 4, where they differ
RENAMED: Mapping[str, Sequence[tuple[str, str]]] = {
    "vit": (
        (r"\.encoder\.layer\.", ".layers."),
        (r"\.attention\.attention\.(query|key|value)\b", r".attention.\1"),
        (r"\.attention\.query\b", ".attention.q_proj"),
        (r"\.attention\.key\b", ".attention.k_proj"),
        (r"\.attention\.value\b", ".attention.v_proj"),
        (r"\.attention\.attention\.", ".attention."),
        (r"\.attention\.output\.dense\b", ".attention.o_proj"),
        (r"\.intermediate\.dense\b", ".mlp.fc1"),
        (r"\.output\.dense\b", ".mlp.fc2"),
    )
}
# (stack, attention type) -> location in the pool of prefixes, for models with two stacks
LOCATIONS = {
    ("encoder", "self"): "encoder_prefix",
    ("decoder", "self"): "self_prefix",
    ("decoder", "cross"): "cross_prefix",
    ("text", "self"): "clip_text_model_self_prefix",
    ("vision", "self"): "clip_vision_model_self_prefix",
}


@dataclass(frozen=True)
class Place:
    """Where a site is.

    Args:
        adapter: path of a bottleneck adapter at the site in `adapters`.
        location: of its prefix in the pool.
        index, depth: its number among the prefixes of this location, and how many there are.
    """

    adapter: str
    location: str
    index: int
    depth: int


@dataclass(frozen=True)
class Block:
    """Our rows of a tensor: the block number `index` of `count` equal ones."""

    index: int = 0
    count: int = 1


WHOLE = Block()


@dataclass(frozen=True)
class PeerTensor:
    """One of our parameters, the name of a tensor in `adapters`, and our part of that tensor.

    Args:
        parameter: ours.
        name: of the tensor in `adapters`.
        shape: of the whole tensor; None: as `block` makes it.
        block: our rows of it, if `pick` is None.
        pick: any other part of a tensor of this shape.
    """

    parameter: torch.Tensor
    name: str
    block: Block = WHOLE
    shape: tuple[int, ...] | None = None
    pick: Callable[[torch.Tensor], torch.Tensor] | None = None

    def load(self, tensor: torch.Tensor) -> None:
        """Fill our parameter. Raises ValueError if the whole tensor has another shape."""
        rows, *rest = self.parameter.shape
        check_shape(self.name, tensor, self.shape or (rows * self.block.count, *rest))
        pick = self.pick or (lambda whole: whole.chunk(self.block.count)[self.block.index])
        fill(self.parameter, self.name, pick(tensor))


def rename(name: str, table: Family) -> str:
    """Return the name of a tensor in transformers 5, without the base model of shared tensors."""
    for shared in (PROMPT, RULES):
        if name.endswith(shared):
            return shared
    for pattern, replacement in RENAMED.get(table.name, ()):
        name = re.sub(pattern, replacement, name)
    return name


def locate(
    model: nn.Module, table: Family, sites: Sequence[Site], left_out: Sequence[int]
) -> list[Place | None]:
    """Return the place of each site; None in a layer that is left out.

    Layers are numbered through all stacks, in the order of the family's table. Raises ValueError
    for a layer that the model does not have.
    """
    first, total = {"": 0}, 0
    for name, stack in table.stacks.items():
        first[name] = total
        total += len(model.get_submodule(stack.path))  # type: ignore[arg-type]
    if any(layer >= total for layer in left_out):
        raise ValueError(f"leave_out={list(left_out)}: the model has layers 0 to {total - 1}")
    kept = [site for site in sites if first[site.stack] + site.layer not in left_out]
    depths = Counter((site.stack, site.kind) for site in kept)
    seen: Counter[tuple[str, str]] = Counter()
    places: list[Place | None] = []
    for site in sites:
        if first[site.stack] + site.layer in left_out:
            places.append(None)
            continue
        key = (site.stack, site.kind)
        places.append(_place(table, site, seen[key], depths[key]))
        seen[key] += 1
    return places


def _place(table: Family, site: Site, index: int, depth: int) -> Place:
    if not site.stack:
        return Place("", "", index, depth)
    stack = table.stacks[site.stack]
    block = stack.attentions.get(site.kind, "").rpartition(".")[0]
    module = MODULES[table.name][site.kind == "ffn"]
    module = module.replace("{block}", block).replace("{ffn}", stack.ffn)
    several = len(table.stacks) > 1 and site.kind != "ffn"
    location = LOCATIONS[site.stack, site.kind] if several else "self_prefix"
    return Place(f"{stack.path}.{site.layer}.{module}", location, index, depth)


def tensors_of(delta: Delta, place: Place, matrices: Sequence[str]) -> Iterator[PeerTensor]:
    """Yield the tensor of each parameter of a delta; `matrices`: those that LoRA adapts."""
    form, path = delta.form, delta.site.write.path
    if isinstance(form, Memory):
        yield from _memory(form, place)
        yield from _gate(delta.composition, f"{path}.prefix_tuning.prefix_gates.a")
    elif isinstance(form, Vectors):
        yield PeerTensor(form.vectors, PROMPT)
    elif isinstance(form, Factors):
        block = _block(delta.site, matrices)
        yield _column(form.factors, f"{path}.loras.a.lora_B", block)
    elif isinstance(form, Hypercomplex):
        yield from _hypercomplex(form, place.adapter)
        yield from _scales(delta.composition, place.adapter)
    else:
        assert isinstance(form, Bottleneck)
        if isinstance(form.activation, nn.Identity):
            yield from _lora(form, delta, f"{path}.loras.a", _block(delta.site, matrices))
        else:
            yield from _weight_and_bias(form.down, f"{place.adapter}.adapter_down.0")
            yield from _weight_and_bias(form.up, f"{place.adapter}.adapter_up")
            yield from _scales(delta.composition, place.adapter)


def _memory(form: Memory, place: Place) -> Iterator[PeerTensor]:
    base = f"prefix_pool.a.{place.location}"
    if "keys" in form._parameters:
        length = form.keys.size(0)
        for offset, parameter in enumerate((form.keys, form.values)):
            pick = partial(_flat_part, length=length, place=place, offset=offset)
            shape = (2 * place.depth * parameter.numel(),)
            yield PeerTensor(parameter, f"{base}.control_trans", shape=shape, pick=pick)
        return
    yield PeerTensor(form.trunk.embedding, f"{base}.wte.weight")
    yield from _weight_and_bias(form.trunk.hidden, f"{base}.control_trans.0")
    block = Block(place.index, place.depth)
    yield from _weight_and_bias(form.head, f"{base}.control_trans.2", block)


def _flat_part(tensor: torch.Tensor, *, length: int, place: Place, offset: int) -> torch.Tensor:
    """Return the keys (offset 0) or values (1) of a layer, [L, D], from a flat prefix."""
    return tensor.reshape(length, 2 * place.depth, -1)[:, 2 * place.index + offset]


def _column(factors: torch.Tensor, name: str, block: Block) -> PeerTensor:
    """Return (IA)3's factors, a column in `adapters`."""
    shape = (factors.numel() * block.count, 1)
    return PeerTensor(
        factors, name, shape=shape, pick=lambda t: t.flatten().chunk(block.count)[block.index]
    )


def _lora(form: Bottleneck, delta: Delta, base: str, block: Block) -> Iterator[PeerTensor]:
    yield PeerTensor(form.down.weight, f"{base}.lora_A", block)
    yield PeerTensor(form.up.weight, f"{base}.lora_B", block)
    yield from _gate(delta.composition, f"{base}.gate", block)


def _block(site: Site, matrices: Sequence[str]) -> Block:
    """Return a site's rows of a tensor for all matrices of a merged one."""
    if site.write.part is None:
        return WHOLE
    return Block(matrices.index(site.representation), len(matrices))


def _hypercomplex(form: Hypercomplex, base: str) -> Iterator[PeerTensor]:
    for linear, name in ((form.down, "adapter_down.0"), (form.up, "adapter_up")):
        yield PeerTensor(linear.left, f"{base}.{name}.W_left")
        yield PeerTensor(linear.right, f"{base}.{name}.W_right")
        if linear.bias is not None:
            yield PeerTensor(linear.bias, f"{base}.{name}.b")
    yield PeerTensor(form.down.rules.weight, RULES)


def _scales(composition: Composition, base: str) -> Iterator[PeerTensor]:
    if isinstance(composition, LearnedScale):
        yield PeerTensor(composition.scale, f"{base}.scaling")
    yield from _gate(composition, f"{base}.gate")


def _gate(composition: Composition, name: str, block: Block = WHOLE) -> Iterator[PeerTensor]:
    if isinstance(composition, InputGate | GatedMemory):
        yield from _weight_and_bias(composition.gate, name, block)


def _weight_and_bias(module: Any, name: str, block: Block = WHOLE) -> Iterator[PeerTensor]:
    yield PeerTensor(module.weight, f"{name}.weight", block)
    yield PeerTensor(module.bias, f"{name}.bias", block)
