"""Decide whether, and into which weight, a delta can be folded exactly."""

from torch import nn

from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site, Tap
from unipeft_run.backbones.sites import find_neighbour
from unipeft_run.deltas.compositions import Add, LearnedScale, Rescale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel, sequential
from unipeft_run.deltas.magnitude import Magnitude

FEED_FORWARD = ("ffn", "ffn.normed")  # sites that span the whole feed-forward sub-layer
# site -> site of the weight that computes its h last, or reads it; others are their own
WEIGHTS = {
    **dict.fromkeys((*FEED_FORWARD, "ffn.hidden"), "ffn.down"),
    **dict.fromkeys(("attn.output", "attn.context"), "attn.projection"),
    "ffn.up_input": "ffn.up",
    "ffn.gate_input": "ffn.gate",
}
LINEAR = (Add, Scaled, LearnedScale, Magnitude)  # compositions that are linear in dh
BEFORE_NORM = "it reads the residual stream before a LayerNorm, and the FFN reads it after"


def find_obstacle(delta: Delta, table: Family) -> str | None:
    """Say why this delta cannot be folded; None if it can."""
    form, composition = delta.form, delta.composition
    if isinstance(form, Memory):
        return None
    if isinstance(form, Vectors):
        return "a prompt lengthens the input, and no weight can do that"
    if is_rescaling(delta):
        weight = find_weight(delta, table)
        return None if weight else "it rescales a sum, not one weight's output"
    if not isinstance(form, Bottleneck) or not isinstance(composition, LINEAR):
        return f"no folding rule for {type(form).__name__} with {type(composition).__name__}"
    if form.norm is not None or isinstance(getattr(composition, "norm", None), nn.LayerNorm):
        return "its own LayerNorm is not linear"
    return None if find_weight(delta, table) else _find_widening_obstacle(delta, table)


def _find_widening_obstacle(delta: Delta, table: Family) -> str | None:
    """Say why an adapter cannot become further hidden units of an FFN."""
    if changes_input(delta):
        return "its activation comes before the weight"
    if delta.insertion is sequential:
        return "it reads the sub-layer's output, and no weight follows there"
    if delta.site.representation not in FEED_FORWARD:
        return "it spans more than one weight"
    if table.activation is None:
        return "the hidden units of the FFN are gated"
    reads_same = delta.read_tap == find_neighbour(table, delta.site, "ffn.up")[0]
    return None if reads_same else BEFORE_NORM


def find_weight(delta: Delta, table: Family) -> Tap | None:
    """Return the output of the weight that the delta can be folded into; None if there is none."""
    site, form = delta.site, delta.form
    read, weight = _weight_of(site, table)
    if is_rescaling(delta):
        return weight
    if not (isinstance(form, Bottleneck) and isinstance(form.activation, nn.Identity)):
        return None
    if site.write.side == "in":
        return weight if changes_input(delta) else None
    if delta.insertion is sequential:
        return weight
    is_beside = delta.insertion is parallel and (delta.read_tap, site.write) == (read, weight)
    return weight if is_beside else None


def _weight_of(site: Site, table: Family) -> tuple[Tap, Tap] | tuple[None, None]:
    """Return the taps of the weight whose output, or input, is h; None if h is a sum."""
    if site.representation in ("attn.heads", "ffn.block", "embedding"):
        return None, None
    name = WEIGHTS.get(site.representation, site.representation)
    return find_neighbour(table, site, name)


def is_rescaling(delta: Delta) -> bool:
    """Return whether the delta multiplies h by trained factors."""
    return isinstance(delta.composition, Rescale)


def changes_input(delta: Delta) -> bool:
    """Return whether the delta reads and modifies the input of the weight that it is at."""
    site = delta.site
    reads_h = delta.insertion is sequential or site.read == site.write
    return site.write.side == "in" and reads_h


def surrounds_weight(delta: Delta) -> bool:
    """Return whether the delta changes the input or output of a weight that others change."""
    return is_rescaling(delta) or delta.insertion is sequential or changes_input(delta)
