"""A site: one place in the backbone where a hidden representation is modified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tap:
    """Where a tensor passes: a module and a side of it.

    Sides: `in` its first argument; `out` its result; `dropped` its result after the residual
    dropout that follows it; `heads` the per-head result inside an attention module; `of` the module
    applied to h; `same` h itself.
    """

    path: str
    side: str

    @classmethod
    def parse(cls, text: str, prefix: str = "") -> "Tap":
        """From `path:side`, the path below `prefix`; an empty path is the prefix itself."""
        path, side = text.split(":")
        return cls(".".join(part for part in (prefix, path) if part), side)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a form and a composition need to know of their place.

    Args:
        representation: the modified representation's name, such as `attn.heads`.
        read: where x is read.
        write: where h is written.
        width_in, width_out: widths of x and of h.
        num_heads: heads of the attention module, 0 outside of attention.
        query: path of the query projection below the attention module.
        dropout: the backbone's rates, `hidden` and `attention`.
        reference_query: what the official code feeds a memory in this family, by activation.
        shared: modules that all sites of one attention type share.
    """

    representation: str
    read: Tap
    write: Tap
    width_in: int
    width_out: int
    num_heads: int
    query: str
    dropout: Mapping[str, float]
    reference_query: Mapping[str, Any]
    shared: dict[str, Any]

    def share(self, name: str, build: Callable[[], Any]) -> Any:
        """The module of that name which this site's group shares, built by the first to ask."""
        if name not in self.shared:
            self.shared[name] = build()
        return self.shared[name]
