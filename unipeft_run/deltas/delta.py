"""The sentence of the design space: h <- compose(h, f(insert(x, h)))."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unipeft_run.deltas.compositions import Composition
from unipeft_run.deltas.forms.base import Form
from unipeft_run.deltas.insertions import sequential
from unipeft_run.deltas.site import Site

Insertion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Delta(nn.Module):
    """One change at one site; a child `delta_<slot>` of the module where h is written.

    Its hook faces are bound methods, so that copies of the model hold hooks of their own deltas:
    `read` keeps x, the `write_*` faces replace h.
    """

    def __init__(self, site: Site, form: Form, insertion: Insertion, composition: Composition):
        super().__init__()
        self.site = site
        self.form = form
        self.insertion = insertion
        self.composition = composition
        self.x: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, h: torch.Tensor, **gate: torch.Tensor) -> torch.Tensor:
        return self.composition(h, self.form(self.insertion(x, h)), **gate)

    @property
    def reads_x(self) -> bool:
        return self.insertion is not sequential

    def read(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the first argument of `module`: x."""
        self.x = args[0] if args else kwargs["hidden_states"]

    def take(self) -> torch.Tensor:
        """x, given once: what is kept between passes would outlive them."""
        x, self.x = self.x, None
        assert x is not None, "the tap for x comes before the tap for h"
        return x

    def write_out(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """Replace the result of `module`."""
        return self.write(output, module)

    def write_in(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        """Replace the first argument of `module`."""
        return (self.write(args[0], module), *args[1:])

    def write(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        return self(self.read_from_h(h, module), h)

    def read_from_h(self, h: torch.Tensor, module: nn.Module) -> torch.Tensor:
        """x by the side of its tap: read before, computed from h, or h itself."""
        if not self.reads_x:
            return h
        match self.site.read.side:
            case "of":  # not module(h): its hooks would call us again
                assert isinstance(module, nn.LayerNorm)
                return module.forward(h)
            case "same":
                return h
            case _:
                return self.take()
