"""Fold deltas into the backbone's weights, where that is exact, to get a model for inference."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site, Tap
from unipeft_run.deltas.attach import detach, find_deltas, reattach
from unipeft_run.deltas.compositions import Add, LearnedScale, Rescale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.insertions import parallel, sequential
from unipeft_run.errors import UserError

FEED_FORWARD = ("ffn", "ffn.normed")  # sites that span the whole feed-forward sub-layer
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
    if delta.site.read != _feed_forward_tap(delta.site, table, "ffn.up", 0):
        return (
            "it reads the residual stream before a LayerNorm, and the feed-forward reads it after"
        )
    return None


def find_linear(delta: Delta, table: Family) -> str:
    """Return the path of the Linear that the delta can be folded into; empty if there is none."""
    site, form = delta.site, delta.form
    if _is_rescaling(delta) and site.representation in FEED_FORWARD:
        return _feed_forward_tap(site, table, "ffn.down", 1).path
    if _is_rescaling(delta):
        return site.write.path if site.representation != "ffn.block" else ""
    if not (isinstance(form, Bottleneck) and isinstance(form.activation, nn.Identity)):
        return ""
    if delta.insertion is parallel and site.read.path == site.write.path:
        return site.write.path
    if delta.insertion is sequential and site.representation in FEED_FORWARD:
        return _feed_forward_tap(site, table, "ffn.down", 1).path
    return site.write.path if delta.insertion is sequential else ""


def _is_rescaling(delta: Delta) -> bool:
    return isinstance(delta.composition, Rescale)


def _changes_input(delta: Delta) -> bool:
    """Return whether the delta reads and modifies the input of the weight that it is at."""
    return delta.site.write.side == "in" and delta.site.read == delta.site.write


def _feed_forward_tap(site: Site, table: Family, name: str, end: int) -> Tap:
    """Return the tap for x (end 0) or h (end 1) of site `name` in the feed-forward of `site`."""
    up = table.ffn[site.representation].split(" -> ")[0].partition(":")[0]
    layer = site.read.path.removesuffix(up).rstrip(".")
    return Tap.parse(table.ffn[name].split(" -> ")[end], layer)


def _scale(delta: Delta) -> Any:
    return getattr(delta.composition, "scale", 1.0)


def _fold_into_linear(linear: Any, delta: Delta) -> None:
    """Add s W_up W_down to a parallel weight, or multiply it into the one beside, in float64."""
    form: Any = delta.form
    scale, double = _scale(delta), torch.float64
    product = scale * (form.up.weight.to(double) @ form.down.weight.to(double))
    weight = linear.weight.to(double)
    bias = _bias(linear).to(double)
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
    linear.weight.copy_(weight)
    if linear.bias is not None or form.down.bias is not None:
        linear.bias = nn.Parameter((bias + shift).to(linear.weight), requires_grad=False)


def _rescale(linear: Any, delta: Delta) -> None:
    """Multiply the columns of a weight, or its rows and its bias, by the delta's factors."""
    factors: Any = delta.form.factors
    if delta.site.write.side == "in":
        linear.weight.mul_(factors)
    else:
        linear.weight.mul_(factors[:, None])
        if linear.bias is not None:
            linear.bias.mul_(factors)


def _widen_feed_forward(model: nn.Module, table: Family, delta: Delta) -> None:
    """Turn the adapter into r additional hidden units of the parallel feed-forward."""
    form: Any = delta.form
    up = _feed_forward_tap(delta.site, table, "ffn.up", 1).path
    down = _feed_forward_tap(delta.site, table, "ffn.down", 1).path
    layer = up.removesuffix(Tap.parse(table.ffn["ffn.up"].split(" -> ")[1]).path)
    first: Any = model.get_submodule(up)
    second: Any = model.get_submodule(down)
    scale, activation = _scale(delta), model.get_submodule(layer + table.activation)
    split = SplitActivation(first.out_features, activation, form.activation)
    biases = [_bias(first), _bias(form.down)]
    outer = [second.weight, scale * form.up.weight]
    model.set_submodule(up, _linear(torch.cat([first.weight, form.down.weight]), torch.cat(biases)))
    model.set_submodule(
        down, _linear(torch.cat(outer, dim=1), _bias(second) + scale * _bias(form.up))
    )
    model.set_submodule(layer + table.activation, split)


def _bias(linear: nn.Linear) -> torch.Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias


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


def make_probe(model: Any, table: Family) -> dict[str, torch.Tensor]:
    """Make a random batch of two examples, one of them padded, each with one end token."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (2, 9), generator=generator)
    for special in (config.pad_token_id, config.eos_token_id):
        ids[ids == special] += 1
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = config.pad_token_id, 0
    ids[0, 8] = ids[1, 5] = config.eos_token_id  # BART's classifier reads the state there
    batch = {"input_ids": ids, "attention_mask": mask}
    if "decoder" in table.stacks:
        batch["decoder_input_ids"] = ids
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _check_logits(logits: torch.Tensor, expected: torch.Tensor) -> None:
    size = max(1.0, float(expected.abs().max()))
    error, allowed = float((logits - expected).abs().max()) / size, TOLERANCE[expected.dtype]
    if not error <= allowed:
        raise UserError(
            f"folding in {expected.dtype} changes the logits by {error:.1e} of the largest; "
            f"at most {allowed:g} is allowed. Fold in float32 and cast the result."
        )
