"""Generate the prefixes of an update once, instead of at every layer of every micro-batch.

Shape legend: L prefix length, M width of the MLP, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.deltas.forms.memory import Memory, Trunk

Pair = tuple[Tensor, Tensor]


class SharedMemories:
    """The keys and values of every prefix with an MLP, shared by the micro-batches of an update.

    The model reads them as leaf tensors with fixed addresses. Their gradients are summed over the
    micro-batches and propagated through the MLP once. Prefixes with dropout are not shared, because
    each micro-batch draws its own mask.
    """

    def __init__(
        self, model: nn.Module, autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        memories = [module for module in model.modules() if isinstance(module, Memory)]
        self.forms = [form for form in memories if _is_constant(form)]
        self.autocast = autocast
        with torch.no_grad():
            values = self._generate()
        self.leaves = [v.clone().requires_grad_() for v in values]
        self.gradients = [torch.zeros_like(leaf) for leaf in self.leaves]
        for leaf, gradient in zip(self.leaves, self.gradients, strict=True):
            leaf.grad = gradient

    def parameters(self) -> set[nn.Parameter]:
        """Return the parameters whose gradients `shared` computes."""
        return {parameter for form in self.forms for parameter in _generator_of(form)}

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Generate the prefixes; after the micro-batches inside, propagate their gradients."""
        if not self.forms:
            yield
            return
        values = self._generate()
        with torch.no_grad():
            for leaf, gradient, value in zip(self.leaves, self.gradients, values, strict=True):
                leaf.copy_(value)
                gradient.zero_()
        for index, form in enumerate(self.forms):
            pair = self.leaves[2 * index], self.leaves[2 * index + 1]
            form.__dict__["memory"] = lambda pair=pair: pair
        try:
            yield
        finally:
            for form in self.forms:
                del form.__dict__["memory"]
        torch.autograd.backward(values, self.gradients)

    def _generate(self) -> list[Tensor]:
        """Return keys and values, [L, D] each, of all forms, with one product per trunk."""
        pairs: dict[Memory, Pair] = {}
        with self.autocast():
            for trunk in dict.fromkeys(form.trunk for form in self.forms):
                pairs |= _generate_group(trunk, [f for f in self.forms if f.trunk is trunk])
        # float32, so that the gradients of the micro-batches are summed in it
        return [_widen(value) for form in self.forms for value in pairs[form]]


def _generate_group(trunk: Trunk, forms: list[Memory]) -> dict[Memory, Pair]:
    weight = torch.cat([form.head.weight for form in forms])
    bias = torch.cat([form.head.bias for form in forms])
    parts = F.linear(trunk(), weight, bias).chunk(2 * len(forms), dim=-1)
    return {form: (parts[2 * i], parts[2 * i + 1]) for i, form in enumerate(forms)}


def _widen(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _is_constant(form: Memory) -> bool:
    """Return whether the prefix is generated from trained parameters without dropout."""
    if "keys" in form._parameters:
        return False
    return form.dropout.p == 0.0 and form.head.weight.requires_grad


def _generator_of(form: Memory) -> Iterator[nn.Parameter]:
    yield from form.trunk.parameters()
    yield from form.head.parameters()
