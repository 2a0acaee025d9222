"""Fold deltas into the backbone's weights, where that is exact, to get a model for inference."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site
from unipeft_run.backbones.sites import find_neighbour
from unipeft_run.deltas.attach import detach, find_deltas, reattach
from unipeft_run.deltas.compositions import Add, LearnedScale, Rescale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import sequential
from unipeft_run.deltas.probe import make_probe
from unipeft_run.errors import UserError

FEED_FORWARD = ("ffn", "ffn.normed")  # sites that span the whole feed-forward sub-layer
# site of a whole sub-layer -> site of its last weight
OUTPUT_WEIGHTS = {**dict.fromkeys(FEED_FORWARD, "ffn.down"), "attn.output": "attn.projection"}
# Largest allowed difference of the logits, relative to the largest logit or to 1.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference with its deltas folded in; `model` is unchanged.

    LoRA is added to the weight it modifies, and (IA)3 rescales its rows or columns. A parallel
    feed-forward adapter becomes r additional hidden units of the feed-forward, with their own
    activation. A prefix or multi-head parallel
    adapter modifies attention, not a weight, so it stays a delta, without its MLP. BitFit and full
    fine-tuning are already in the weights.

    The logits of both models are compared on a random batch, in the model's own precision.

    Raises UserError, with the reason, if a delta cannot be folded exactly, or if rounding to the
    precision of the weights changes the logits.
    """
    folded: Any = copy.deepcopy(model).eval().requires_grad_(False)
    table, deltas = family_of(folded.config), list(find_deltas(folded))
    _check_foldable(deltas, table)
    with torch.no_grad():
        batch = make_probe(folded, table)
        expected = folded(**batch)[0]
        detach(folded)
        kept = [(path, delta) for path, delta in deltas if isinstance(delta.form, Memory)]
        foldable = [delta for _, delta in deltas if not isinstance(delta.form, Memory)]
        linear = [delta for delta in foldable if find_linear(delta, table)]
        for delta in sorted(linear, key=_is_rescaling):  # what it rescales includes other changes
            module = folded.get_submodule(find_linear(delta, table))
            (_rescale if _is_rescaling(delta) else _fold_into_linear)(module, delta)
        wide = [delta for delta in foldable if not find_linear(delta, table)]
        for delta in wide:
            _widen_feed_forward(folded, table, delta)
        for _, delta in kept:
            _drop_mlp(delta.form)
        reattach(folded, kept)
        if wide:
            folded.save_pretrained = refuse_wide
        _check_logits(folded(**batch)[0], expected)
    return folded  # type: ignore[no-any-return]


def refuse_wide(*args: Any, **kwargs: Any) -> None:
    """Refuse in place of `save_pretrained` of a model whose feed-forwards were widened."""
    raise UserError(
        "save_pretrained cannot store this folded model: its feed-forwards have more hidden units "
        "than its configuration says, with two activations\n"
        "unipeft.save(model, folder) stores the delta of the model before folding"
    )


class SplitActivation(nn.Module):
    """Applies `first` to the first `width` columns and `second` to the rest, [..., width + r]."""

    def __init__(self, width: int, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.width, self.first, self.second = width, first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x[..., : self.width], x[..., self.width :]
        return torch.cat([self.first(first), self.second(second)], dim=-1)


def _check_foldable(deltas: Sequence[tuple[str, Delta]], table: Family) -> None:
    reasons: dict[str, int] = {}
    places = Counter(delta.site.write for _, delta in deltas)
    for path, delta in deltas:
        reason = find_obstacle(delta, table)
        if reason is None and delta.insertion is sequential and places[delta.site.write] > 1:
            reason = "it shares its place with another delta, which must not read its change"
        if reason:
            line = f"{path.rpartition('.')[2]} at {delta.site.representation}: {reason}"
            reasons[line] = reasons.get(line, 0) + 1
    if reasons:
        lines = [f"cannot fold {line} ({count} sites)" for line, count in reasons.items()]
        raise UserError("\n".join(lines))


def find_obstacle(delta: Delta, table: Family) -> str | None:
    """Say why this delta cannot be folded; None if it can."""
    form, composition = delta.form, delta.composition
    if isinstance(form, Memory):
        return None
    if isinstance(form, Vectors):
        return "a prompt lengthens the input, and no weight can do that"
    if _is_rescaling(delta):
        return None if find_linear(delta, table) else "it rescales a sum, not one weight's output"
    if not isinstance(form, Bottleneck) or not isinstance(composition, Add | Scaled | LearnedScale):
        return f"no folding rule for {type(form).__name__} with {type(composition).__name__}"
    if form.norm is not None or isinstance(composition.norm, nn.LayerNorm):
        return "its own LayerNorm is not linear"
    if find_linear(delta, table):
        return None
    if _changes_input(delta):
        return "its activation comes before the weight"
    if delta.insertion is sequential:
        return "it reads the sub-layer's output, and no weight follows there"
    if delta.site.representation not in FEED_FORWARD:
        return "it spans more than one weight"
    return _find_widening_obstacle(delta, table)


def _find_widening_obstacle(delta: Delta, table: Family) -> str | None:
    """Say why the adapter cannot become hidden units of the feed-forward; None if it can."""
    if table.activation is None:
        return "the hidden units of the feed-forward are gated"
    if delta.read_tap != find_neighbour(table, delta.site, "ffn.up")[0]:
        return (
            "it reads the residual stream before a LayerNorm, and the feed-forward reads it after"
        )
    return None


def find_linear(delta: Delta, table: Family) -> str:
    """Return the path of the Linear that the delta can be folded into; empty if there is none."""
    site, form = delta.site, delta.form
    output = _find_output_weight(site, table)
    if _is_rescaling(delta):
        return output
    if not (isinstance(form, Bottleneck) and isinstance(form.activation, nn.Identity)):
        return ""
    if delta.insertion is sequential:
        return output
    return site.write.path if delta.read_tap.path == site.write.path else ""


def _find_output_weight(site: Site, table: Family) -> str:
    """Return the path of the weight whose output, or input, is h; empty if h is a sum."""
    if site.representation in OUTPUT_WEIGHTS:
        return find_neighbour(table, site, OUTPUT_WEIGHTS[site.representation])[1].path
    return site.write.path if site.representation != "ffn.block" else ""


def _is_rescaling(delta: Delta) -> bool:
    return isinstance(delta.composition, Rescale)


def _changes_input(delta: Delta) -> bool:
    """Return whether the delta reads and modifies the input of the weight that it is at."""
    return delta.site.write.side == "in" and delta.site.read == delta.site.write


def _scale(delta: Delta) -> Any:
    return getattr(delta.composition, "scale", 1.0)


def _matrix(module: Any) -> torch.Tensor:
    """Return the weight of a Linear, or of GPT-2's transposed Conv1D, as a view [D_out, D_in]."""
    weight: torch.Tensor = module.weight
    return weight.T if isinstance(module, Conv1D) else weight


def _rows(tensor: torch.Tensor, site: Site) -> torch.Tensor:
    """Return the rows of a weight or bias that belong to the site, as a view."""
    if site.write.part is None:
        return tensor
    index, count = site.write.part
    return tensor.chunk(count)[index]


def _fold_into_linear(linear: Any, delta: Delta) -> None:
    """Add s W_up W_down to a parallel weight, or multiply it into the one beside, in float64."""
    form: Any = delta.form
    scale, double = _scale(delta), torch.float64
    product = scale * (form.up.weight.to(double) @ form.down.weight.to(double))
    matrix = _rows(_matrix(linear), delta.site)
    weight = matrix.to(double)
    bias = _rows(_bias(linear), delta.site).to(double)
    shift = torch.zeros_like(product[:, 0])
    if form.down.bias is not None:
        shift = scale * (form.up.weight.to(double) @ form.down.bias.to(double))
        shift = shift + scale * form.up.bias.to(double)
    if _changes_input(delta):
        weight, shift = weight + weight @ product, weight @ shift
    elif delta.insertion is sequential:
        weight, bias = weight + product @ weight, bias + product @ bias
    else:
        weight = weight + product
    matrix.copy_(weight)
    if linear.bias is None and form.down.bias is not None:
        linear.bias = nn.Parameter(_bias(linear), requires_grad=False)
    if linear.bias is not None:
        _rows(linear.bias, delta.site).copy_(bias + shift)


def _rescale(linear: Any, delta: Delta) -> None:
    """Multiply the columns of a weight, or its rows and its bias, by the delta's factors."""
    factors: Any = delta.form.factors
    if delta.site.write.side == "in":
        _matrix(linear).mul_(factors)
        return
    _rows(_matrix(linear), delta.site).mul_(factors[:, None])
    if linear.bias is not None:
        _rows(linear.bias, delta.site).mul_(factors)


def _widen_feed_forward(model: nn.Module, table: Family, delta: Delta) -> None:
    """Turn the adapter into r additional hidden units of the parallel feed-forward."""
    form: Any = delta.form
    up = find_neighbour(table, delta.site, "ffn.up")[1].path
    down = find_neighbour(table, delta.site, "ffn.down")[1].path
    assert table.activation is not None, "checked by find_obstacle"
    stack = table.stacks[delta.site.stack]
    place = table.activation.replace("{f}", stack.ffn).removeprefix(".")
    path = f"{stack.path}.{delta.site.layer}.{place}"
    first: Any = model.get_submodule(up)
    second: Any = model.get_submodule(down)
    inner, outer = _matrix(first), _matrix(second)
    scale, activation = _scale(delta), model.get_submodule(path)
    split = SplitActivation(len(inner), activation, form.activation)
    biases = [_bias(first), _bias(form.down)]
    model.set_submodule(up, _linear(torch.cat([inner, form.down.weight]), torch.cat(biases)))
    wide = torch.cat([outer, scale * form.up.weight], dim=1)
    model.set_submodule(down, _linear(wide, _bias(second) + scale * _bias(form.up)))
    model.set_submodule(path, split)


def _bias(linear: Any) -> torch.Tensor:
    matrix = _matrix(linear)
    return matrix.new_zeros(len(matrix)) if linear.bias is None else linear.bias


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    out, into = weight.shape
    linear = nn.Linear(into, out, device="meta").requires_grad_(False).eval()
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _drop_mlp(form: Any) -> None:
    """Keep P_k and P_v as parameters and drop the MLP that computed them."""
    keys, values = (part.clone() for part in form.memory())
    for name in ("trunk", "head", "parts"):
        if hasattr(form, name):
            delattr(form, name)
    form.keys = nn.Parameter(keys, requires_grad=False)
    form.values = nn.Parameter(values, requires_grad=False)


def _check_logits(logits: torch.Tensor, expected: torch.Tensor) -> None:
    size = max(1.0, float(expected.abs().max()))
    error, allowed = float((logits - expected).abs().max()) / size, TOLERANCE[expected.dtype]
    if not error <= allowed:
        raise UserError(
            f"folding in {expected.dtype} changes the logits by {error:.1e} of the largest; "
            f"at most {allowed:g} is allowed. Fold in float32 and cast the result."
        )
