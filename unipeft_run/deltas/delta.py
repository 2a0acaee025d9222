"""The `Delta` module, which computes h <- compose(h, f(insert(x, h))) at one site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from unipeft_run.backbones.site import Site, Tap
from unipeft_run.deltas.compositions import Composition
from unipeft_run.deltas.forms.base import Form
from unipeft_run.deltas.insertions import residual, sequential

Insertion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Delta(nn.Module):
    """The change at one site: the child `delta_<slot>` of the module that h is written to.

    The hooks are bound methods, so that a deep copy of the model calls its own deltas: `read`
    stores x, `write_in` and `write_out` replace h.
    """

    def __init__(self, site: Site, form: Form, insertion: Insertion, composition: Composition):
        super().__init__()
        self.site = replace(site, shared={}, model_shared={})  # the form has what it uses of them
        self.form = form
        self.insertion = insertion
        self.composition = composition
        self.x: torch.Tensor | None = None
        # the module with the relative position bias; in a tuple, so that it is no child
        self.bias_source: tuple[nn.Module, ...] = ()
        self.past: int | torch.Tensor = 0  # tokens before the first query; with a relative bias

    def forward(
        self, x: torch.Tensor, h: torch.Tensor, module: nn.Module | None = None
    ) -> torch.Tensor:
        return self._merge(h, self.insertion(x, h), module)

    def _merge(self, h: torch.Tensor, u: torch.Tensor, module: nn.Module | None) -> torch.Tensor:
        """Return compose(h, f(u)), in the type of h."""
        u = match_type(u, next(self.form.parameters(), u))
        return match_type(self.compose(h, self.form(u), u=u, module=module), h)

    def compose(self, h: torch.Tensor, dh: torch.Tensor, **given: Any) -> torch.Tensor:
        """Merge dh into h, with those of the given arguments that the composition reads."""
        given["form"] = self.form
        return self.composition(h, dh, **{name: given[name] for name in self.composition.reads})

    @property
    def reads_x(self) -> bool:
        """True if the form reads the sub-layer's input x; a sequential form reads only h."""
        return self.form.reads and self.insertion is not sequential

    @property
    def read_tap(self) -> Tap:
        """The tap for x; insertion `residual` reads before the normalisation."""
        if self.insertion is not residual:
            return self.site.read
        assert self.site.residual is not None
        return self.site.residual

    def read(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Store x, the first argument of `module`. A forward pre-hook."""
        self.x = args[0] if args else kwargs["hidden_states"]
        if self.bias_source:
            self.past = _count_past(module, kwargs.get("past_key_values"))

    def pop_x(self) -> torch.Tensor:
        """Return x and clear it, so that no activation outlives its forward pass."""
        x, self.x = self.x, None
        assert x is not None, "x must be read before h is written"
        return x

    def write_out(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Replace the output of `module`, or one part of it. A forward hook."""
        return write_part(self, output, module, self.site.write.part)

    def write_in(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        """Replace the first argument of `module`. A forward pre-hook."""
        return (self.write(args[0], module), *args[1:])

    def write(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        """Return the modified h."""
        return self(self.get_x(h, module), h, module)

    def change(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        """Return what `write` adds to h, for a composition that adds."""
        u = self.insertion(self.get_x(h, module), h)
        return self._merge(torch.zeros_like(h), u, module)

    def get_x(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        """Return x: stored, computed from h, or h itself, depending on the tap for x."""
        if not self.reads_x:
            return h
        match self.read_tap.side:
            case "of":  # not module(h), whose hooks would call this delta again
                assert isinstance(module, nn.LayerNorm)
                return module.forward(h)
            case "same":
                return h
            case _:
                return self.pop_x()


def match_type(u: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return u in the type of `other`, unless autocast chooses the types.

    Models mix types: T5 in float16 keeps one projection in float32, and deltas in float32 train on
    a bfloat16 backbone.
    """
    is_chosen = u.dtype == other.dtype or torch.is_autocast_enabled(u.device.type)
    return u if is_chosen else u.to(other.dtype)


def _count_past(attention: Any, cache: Any) -> int | torch.Tensor:
    """Return the number of tokens in the cache; a static cache has more keys than tokens."""
    past: int | torch.Tensor = 0 if cache is None else cache.get_seq_length(attention.layer_idx)
    return past.clone() if isinstance(past, torch.Tensor) else past  # the cache updates it in place


class Writer(Protocol):
    """What modifies h."""

    def write(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor: ...


def write_part(
    writer: Writer, output: torch.Tensor, module: nn.Module, part: tuple[int, int] | None
) -> torch.Tensor:
    """Return `output` [..., n D] with its i-th block of D columns modified; all of it if None."""
    if part is None:
        return writer.write(output, module)
    index, count = part
    blocks = list(output.chunk(count, dim=-1))
    blocks[index] = writer.write(blocks[index], module)
    return torch.cat(blocks, dim=-1)


@dataclass
class SummedDeltas:
    """The hooks of several deltas that write to one place: h <- h + the sum of their changes.

    Each delta reads the unchanged h, so their order does not matter.
    """

    deltas: Sequence[Delta]

    def write_out(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Replace the output of `module`, or one part of it. A forward hook."""
        return write_part(self, output, module, self.deltas[0].site.write.part)

    def write_in(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        """Replace the first argument of `module`. A forward pre-hook."""
        return (self.write(args[0], module), *args[1:])

    def write(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        """Return the modified h."""
        changed = h
        for delta in self.deltas:
            changed = changed + delta.change(h, module)
        return changed
