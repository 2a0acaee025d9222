"""Decide whether, and into which weight, a delta can be folded exactly."""

from torch import nn

from unipeft_run.backbones.site import Tap
from unipeft_run.deltas.compositions import Add, LearnedScale, Rescale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel, sequential
from unipeft_run.deltas.magnitude import Magnitude

LINEAR = (Add, Scaled, LearnedScale, Magnitude)  # compositions that are linear in dh
BEFORE_NORM = "it reads the residual stream before a LayerNorm, and the feed-forward reads it after"


def find_obstacle(delta: Delta) -> str | None:
    """Say why this delta cannot be folded; None if it can."""
    form, composition = delta.form, delta.composition
    if isinstance(form, Memory):
        return None
    if isinstance(form, Vectors):
        return "a prompt lengthens the input, and no weight can do that"
    if is_rescaling(delta):
        return None if delta.site.weight else "it rescales a sum, not one weight's output"
    if not isinstance(form, Bottleneck) or not isinstance(composition, LINEAR):
        return f"no folding rule for {type(form).__name__} with {type(composition).__name__}"
    if form.norm is not None or isinstance(getattr(composition, "norm", None), nn.LayerNorm):
        return "its own LayerNorm is not linear"
    return None if find_weight(delta) else _find_feed_forward_obstacle(delta)


def _find_feed_forward_obstacle(delta: Delta) -> str | None:
    """Say why an adapter cannot become further hidden units of a feed-forward."""
    hidden = delta.site.feed_forward
    if changes_input(delta):
        return "its activation comes before the weight"
    if delta.insertion is sequential:
        return "it reads the sub-layer's output, and no weight follows there"
    if hidden is None:
        return "it spans more than one weight"
    if delta.read_tap != hidden.read:
        return "the feed-forward is gated" if hidden.activation is None else BEFORE_NORM
    return "the feed-forward is gated" if hidden.activation is None else None


def find_weight(delta: Delta) -> Tap | None:
    """Return the weight that the delta can be folded into; None if there is none."""
    site, form = delta.site, delta.form
    if is_rescaling(delta):
        return site.weight
    if not (isinstance(form, Bottleneck) and isinstance(form.activation, nn.Identity)):
        return None
    if site.write.side == "in":
        return site.weight if changes_input(delta) else None
    if delta.insertion is sequential:
        return site.weight
    return site.weight if delta.insertion is parallel and site.weight == site.write else None


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
