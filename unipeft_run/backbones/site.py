"""Sites: the places in a backbone where a delta reads x and modifies h."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tap:
    """One point where a tensor is read or written: a module and one of its sides.

    Sides: `in`, its first argument; `out`, its output; `dropped`, its output after the residual
    dropout that follows; `heads`, the per-head output inside an attention module; `of`, the module
    applied to h; `same`, h itself. A part (i, n) is the i-th of n equal blocks of columns, for
    modules that compute several things at once.
    """

    path: str
    side: str
    part: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str, prefix: str = "") -> "Tap":
        """Parse `path:side` or `path:side:i/n`, with the path relative to `prefix`.

        An empty path is the prefix.
        """
        path, side, *part = text.split(":")
        index = tuple(map(int, part[0].split("/"))) if part else None
        return cls(".".join(p for p in (prefix, path) if p), side, index)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place in a backbone, with everything that a form and a composition need to know.

    Args:
        representation: name of the modified representation, such as `attn.heads`.
        stack, layer, kind: the stack's name, the layer's number, and the attention type or `ffn`;
            empty for the embedding.
        read: where x is read.
        write: where h is written.
        residual: where the residual stream before the sub-layer is read; None: nowhere.
        width_in, width_out: widths of x and of h; at `attn.heads`, of the keys and values.
        num_heads: key-value heads of the attention module; 0 outside attention.
        query: path of the query projection, relative to the attention module; None: there is none.
        dropout: the backbone's dropout rates, `hidden` and `attention`.
        reference_query: the query option of the official code for this family, by activation.
        relative_bias: path of the attention module with the relative position bias, or None.
        positions: path of the module that takes `position_ids`, or None.
        shared: modules shared by all sites of one attention type in a stack.
        model_shared: modules shared by all sites of a model, whatever their slot.
    """

    representation: str
    stack: str = ""
    layer: int = -1
    kind: str = ""
    read: Tap
    write: Tap
    width_in: int
    width_out: int
    num_heads: int
    query: str | None
    dropout: Mapping[str, float]
    reference_query: Mapping[str, Any]
    residual: Tap | None = None
    relative_bias: str | None = None
    positions: str | None = None
    shared: dict[str, Any]
    model_shared: dict[str, Any] = field(default_factory=dict)

    def share(self, name: str, build: Callable[[], Any]) -> Any:
        """Return the module `name` of this attention type; the first call builds it."""
        return _find_or_build(self.shared, name, build)

    def share_in_model(self, name: str, build: Callable[[], Any]) -> Any:
        """Return the module `name` of the whole model; the first call builds it."""
        return _find_or_build(self.model_shared, name, build)


def _find_or_build(modules: dict[str, Any], name: str, build: Callable[[], Any]) -> Any:
    if name not in modules:
        modules[name] = build()
    return modules[name]
