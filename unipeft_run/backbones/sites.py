"""Find the sites of a model, using its family's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family, Stack, StackSizes
from unipeft_run.backbones.site import Site, Tap
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn


def find_sites(
    model: nn.Module,
    config: Any,
    *,
    sites: Sequence[str],
    stacks: Iterable[str] = ("encoder", "decoder"),
    attentions: Iterable[str] = ("self", "cross"),
    layers: str | Sequence[int] = "all",
) -> Iterator[Site]:
    """Yield the sites of a representation in the given stacks, attention types and layers.

    `stacks` names stacks or their roles. Raises UserError if there is no such site, and for a layer
    that the model does not have.
    """
    table, count = family_of(config), 0
    if "embedding" in sites and table.prompt is not None:
        count += 1
        yield _embedding(table, config)
    for name in selected_stacks(table, stacks):
        stack = table.stacks[name]
        depth = len(model.get_submodule(stack.path))  # type: ignore[arg-type]
        shared: dict[str, dict[str, Any]] = {kind: {} for kind in (*stack.attentions, "ffn")}
        for i in range(depth) if layers == "all" else [int(i) for i in layers]:
            if not 0 <= i < depth:
                raise UserError(f"layer {i}: the {name} has layers 0 to {depth - 1}")
            layer = _Layer(table, config, name, i)
            for representation in sites:
                for kind in layer.modules(representation, set(attentions)):
                    count += 1
                    yield layer.site(representation, kind, shared[kind])
    if not count:
        raise UserError(f"the representation {list(sites)} matches no site of {table.name}")


def selected_stacks(table: Family, names: Iterable[str]) -> list[str]:
    """Return the names of the family's stacks that `names` selects, by name or role."""
    wanted = set(names)
    return [name for name, stack in table.stacks.items() if wanted & {name, stack.role}]


@dataclass(frozen=True)
class _Layer:
    """Layer number `index` in the stack `name`."""

    table: Family
    config: Any
    name: str
    index: int

    @property
    def stack(self) -> Stack:
        return self.table.stacks[self.name]

    def modules(self, representation: str, attentions: set[str]) -> Iterator[str]:
        """Yield the attention types, or "ffn", where the layer has the representation."""
        if representation in self.table.ffn:
            yield "ffn"
        if representation in self.table.attention:
            yield from (kind for kind in self.stack.attentions if kind in attentions)

    def site(self, representation: str, kind: str, shared: dict[str, Any]) -> Site:
        table, sizes = self.table, self.stack.read(self.config)
        read, write = find_taps(table, self.name, self.index, kind, representation)
        width_in, width_out = _widths(representation, sizes)
        return Site(
            representation=representation,
            stack=self.name,
            layer=self.index,
            kind=kind,
            read=read,
            write=write,
            residual=_tap(
                self.stack, self.index, kind, table.residual["ffn" if kind == "ffn" else "attn"]
            ),
            width_in=width_in,
            width_out=width_out,
            num_heads=sizes.kv_heads,
            query=table.query,
            dropout=_dropout(table, self.stack.part(self.config)),
            reference_query=table.reference_query,
            relative_bias=table.relative_bias.get(self.name) if kind == "self" else None,
            positions=table.positions,
            shared=shared,
        )


def find_taps(
    table: Family, stack: str, layer: int, kind: str, representation: str
) -> tuple[Tap, Tap]:
    """Return the taps for x and h of a representation that the family has, in one layer.

    `kind`: the attention type, or `ffn`.
    """
    pair = table.taps(representation)
    assert pair is not None, f"{table.name} has no {representation}"
    read, write = (_tap(table.stacks[stack], layer, kind, text) for text in pair.split(" -> "))
    return read, write


def find_neighbour(table: Family, site: Site, representation: str) -> tuple[Tap, Tap]:
    """Return the taps of another representation in the sub-layer of `site`."""
    return find_taps(table, site.stack, site.layer, site.kind, representation)


def _tap(stack: Stack, layer: int, kind: str, text: str) -> Tap:
    attention = stack.attentions.get(kind, "")
    names = {"{a}": attention, "{b}": attention.rpartition(".")[0], "{f}": stack.ffn}
    for placeholder, module in names.items():
        text = text.replace(placeholder, module)
    return Tap.parse(text.removeprefix("."), f"{stack.path}.{layer}")


def _widths(representation: str, sizes: StackSizes) -> tuple[int, int]:
    """Return the widths of x and h of a representation."""
    width, wide = sizes.width, sizes.ffn_width
    queries, keys = sizes.heads * sizes.head_width, sizes.kv_heads * sizes.head_width
    widths: Mapping[str, tuple[int, int]] = {
        "attn.heads": (width, keys),
        "attn.context": (width, queries),
        "attn.projection": (queries, width),
        "attn.query": (width, queries),
        "attn.key": (width, keys),
        "attn.value": (width, keys),
        "ffn.up": (width, wide),
        "ffn.gate": (width, wide),
        "ffn.hidden": (wide, wide),
        "ffn.down": (wide, width),
    }
    return widths.get(representation, (width, width))


def _embedding(table: Family, config: Any) -> Site:
    assert table.prompt is not None
    width = next(iter(table.stacks.values())).read(config).width
    return Site(
        representation="embedding",
        read=Tap("", "same"),
        write=Tap.parse(table.prompt.write),
        width_in=width,
        width_out=width,
        num_heads=0,
        query=table.query,
        dropout=_dropout(table, config),
        reference_query=table.reference_query,
        shared={},
    )


def _dropout(table: Family, config: Any) -> dict[str, float]:
    names = {"hidden": table.hidden_dropout, "attention": table.attention_dropout}
    return {kind: getattr(config, name) if name else 0.0 for kind, name in names.items()}
