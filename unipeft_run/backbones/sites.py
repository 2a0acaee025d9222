"""Find the sites of a model, using its family's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
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

    Raises UserError if there is no such site, and for a layer that the model does not have.
    """
    table, count = family_of(config), 0
    if "embedding" in sites:
        count += 1
        yield _embedding(table, config)
    for stack, (path, modules) in table.stacks.items():
        if stack not in stacks:
            continue
        depth = len(model.get_submodule(path))  # type: ignore[arg-type]
        shared: dict[str, dict[str, Any]] = {kind: {} for kind in (*modules, "ffn")}
        for i in range(depth) if layers == "all" else [int(i) for i in layers]:
            if not 0 <= i < depth:
                raise UserError(f"layer {i}: the {stack} has layers 0 to {depth - 1}")
            for name in sites:
                for kind, taps in _taps(table, modules, name, set(attentions)):
                    count += 1
                    layer = f"{path}.{i}"
                    yield _site(table, config, name, stack, layer, taps, shared[kind])
    if not count:
        raise UserError(f"the representation {list(sites)} matches no site of {table.name}")


def _taps(
    table: Family, modules: Mapping[str, str], name: str, attentions: set[str]
) -> Iterator[tuple[str, str]]:
    if name in table.ffn:
        yield "ffn", table.ffn[name]
    if name in table.attention:
        for kind, module in modules.items():
            if kind in attentions:
                yield kind, table.attention[name].replace("{a}", module)


def _site(
    table: Family,
    config: Any,
    name: str,
    stack: str,
    layer: str,
    taps: str,
    shared: dict[str, Any],
) -> Site:
    read, write = (Tap.parse(text, layer) for text in taps.split(" -> "))
    width, wide = config.hidden_size, getattr(config, table.ffn_width[stack])
    return Site(
        representation=name,
        read=read,
        write=write,
        width_in=wide if name in ("ffn.down", "ffn.hidden") else width,
        width_out=wide if name in ("ffn.up", "ffn.hidden") else width,
        num_heads=getattr(config, table.num_heads[stack]),
        query=table.query,
        dropout=_dropout(table, config),
        reference_query=table.reference_query,
        shared=shared,
    )


def _embedding(table: Family, config: Any) -> Site:
    return Site(
        representation="embedding",
        read=Tap("", "same"),
        write=Tap.parse(table.prompt.write),
        width_in=config.hidden_size,
        width_out=config.hidden_size,
        num_heads=0,
        query=table.query,
        dropout=_dropout(table, config),
        reference_query=table.reference_query,
        shared={},
    )


def _dropout(table: Family, config: Any) -> dict[str, float]:
    names = {"hidden": table.hidden_dropout, "attention": table.attention_dropout}
    return {kind: getattr(config, name) for kind, name in names.items()}
