"""Fold deltas into the backbone's weights, where that is exact, to get a model for inference."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.site import Site, Tap
from unipeft_run.backbones.sites import find_neighbour
from unipeft_run.deltas.attach import detach, find_deltas, reattach
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.fold_check import check_logits
from unipeft_run.deltas.foldable import (
    changes_input,
    find_obstacle,
    find_weight,
    is_rescaling,
    surrounds_weight,
)
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.insertions import sequential
from unipeft_run.deltas.magnitude import Magnitude
from unipeft_run.deltas.origin import drop_origin
from unipeft_run.deltas.probe import make_probe
from unipeft_run.deltas.weights import bias_or_zero, replace_bias, weight_at
from unipeft_run.errors import UserError
from unipeft_run.tuners.adapter import disabled_tuner, find_adapter, merge_tuner


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference with its deltas folded in; `model` is unchanged.

    LoRA is added to the weight that it modifies; (IA)3 rescales the rows or columns of that weight.
    A parallel feed-forward adapter becomes r additional hidden units of the FFN, with
    their own activation. A prefix or multi-head parallel adapter modifies attention, not a weight,
    so it stays a delta, without its MLP. BitFit and full fine-tuning are already in the weights.
    The PEFT library merges its own methods.

    The logits of both models are compared on a random batch, in the model's own precision, together
    with those of the plain backbone.

    Raises UserError, with the reason, if a delta cannot be folded exactly, or if rounding to the
    precision of the weights changes the logits.
    """
    folded: Any = copy.deepcopy(model).eval().requires_grad_(False)
    drop_origin(folded)
    _drop_autocast(folded)
    table, deltas = family_of(folded.config), list(find_deltas(folded))
    _check_foldable(deltas, table)
    with torch.no_grad():
        batch = make_probe(folded, table)
        expected = folded(**batch)[0]
        plain = _detach_all(folded, batch)
        _fold_deltas(folded, table, deltas)
        check_logits(folded(**batch)[0], expected, plain)
    return folded  # type: ignore[no-any-return]


def _detach_all(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Detach our deltas and merge the PEFT library's; return the logits without either."""
    if adapter := find_adapter(model):
        with disabled_tuner(adapter):
            plain: torch.Tensor = model(**batch)[0]
        merge_tuner(adapter)
        detach(model)
        return plain
    detach(model)
    return model(**batch)[0]  # type: ignore[no-any-return]


def _fold_deltas(model: Any, table: Family, deltas: Sequence[tuple[str, Delta]]) -> None:
    """Fold deltas into the plain backbone that they were detached from; reattach prefixes."""
    biases = _biases(model)
    kept = [(path, delta) for path, delta in deltas if isinstance(delta.form, Memory)]
    foldable = [delta for _, delta in deltas if not isinstance(delta.form, Memory)]
    into_weights = [delta for delta in foldable if find_weight(delta, table)]
    for delta in sorted(into_weights, key=surrounds_weight):
        _fold_into_weight(model, table, delta)
    wide = [delta for delta in foldable if not find_weight(delta, table)]
    for delta in wide:
        _widen_feed_forward(model, table, delta)
    for _, delta in kept:
        _drop_mlp(delta.form)
    reattach(model, kept)
    if wide or _biases(model) != biases:
        model.save_pretrained = refuse_wide if wide else refuse_biases


def _drop_autocast(model: Any) -> None:
    """Undo what accelerate's `prepare` and transformers' `Trainer` did to `forward`: autocast."""
    attributes = vars(model)
    original = attributes.pop("_original_forward", None)
    attributes.pop("_is_accelerate_prepared", None)
    if original is not None:
        attributes.pop("forward", None)
        if getattr(original, "__func__", None) is not type(model).forward:
            model.forward = original  # another patch from before


def _biases(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith("bias")}


STORE = "unipeft.save(model, folder) stores the delta of the model before folding"


def refuse_wide(*args: Any, **kwargs: Any) -> None:
    """Refuse in place of `save_pretrained` of a model whose FFNs were widened."""
    raise UserError(
        "save_pretrained cannot store this folded model: its FFNs have more hidden units "
        f"than its configuration says, with two activations\n{STORE}"
    )


def refuse_biases(*args: Any, **kwargs: Any) -> None:
    """Refuse in place of `save_pretrained` of a model whose matrices were given a bias."""
    raise UserError(
        "save_pretrained cannot store this folded model: some of its linear layers have a bias "
        f"that the backbone's lack\n{STORE}"
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
        changes = changes_input(delta) and not is_rescaling(delta)
        reads_h = delta.insertion is sequential or changes
        if reason is None and reads_h and places[delta.site.write] > 1:
            reason = (
                "another delta writes to the same place, and after folding one would read the "
                "other's change"
            )
        if reason:
            line = f"{path.rpartition('.')[2]} at {delta.site.representation}: {reason}"
            reasons[line] = reasons.get(line, 0) + 1
    if reasons:
        lines = [f"cannot fold {line} ({count} sites)" for line, count in reasons.items()]
        raise UserError("\n".join(lines))


def _scale(delta: Delta) -> Any:
    return getattr(delta.composition, "scale", 1.0)


def _fold_into_weight(model: nn.Module, table: Family, delta: Delta) -> None:
    """Fold a linear change or a rescaling into the weight that it changes or is beside."""
    tap = find_weight(delta, table)
    assert tap is not None
    module = model.get_submodule(tap.path)
    if is_rescaling(delta):
        _rescale(module, tap, delta)
    else:
        _add_product(module, tap, delta)


def _add_product(module: nn.Module, tap: Tap, delta: Delta) -> None:
    """Add s W_up W_down to a parallel weight, or multiply it into the one beside, in float64."""
    form: Any = delta.form
    scale, double = _scale(delta), torch.float64
    product = scale * (form.up.weight.to(double) @ form.down.weight.to(double))
    weight, bias = (get(module, tap).to(double) for get in (weight_at, bias_or_zero))
    shift = torch.zeros_like(product[:, 0])
    if form.down.bias is not None:
        shift = scale * (form.up.weight.to(double) @ form.down.bias.to(double))
        shift = shift + scale * form.up.bias.to(double)
    if changes_input(delta):
        weight, shift = weight + weight @ product, weight @ shift
    elif delta.insertion is sequential:
        weight, bias = weight + product @ weight, bias + product @ bias
    else:
        weight = weight + product
    if isinstance(delta.composition, Magnitude):
        weight = delta.composition.factor(form, module).to(double)[:, None] * weight
    weight_at(module, tap).copy_(weight)
    if bias.any() or shift.any():
        replace_bias(module, tap, bias + shift)


def _rescale(module: nn.Module, tap: Tap, delta: Delta) -> None:
    """Multiply the columns of a weight, or its rows and its bias, by the delta's factors."""
    factors: Any = delta.form.factors
    if delta.site.write.side == "in":
        weight_at(module, tap).mul_(factors)
    else:
        weight_at(module, tap).mul_(factors[:, None])
        bias_or_zero(module, tap).mul_(factors)


def _widen_feed_forward(model: nn.Module, table: Family, delta: Delta) -> None:
    """Turn the adapter into r additional hidden units of the parallel FFN."""
    form: Any = delta.form
    up, down = (find_neighbour(table, delta.site, name)[1] for name in ("ffn.up", "ffn.down"))
    first, second = (model.get_submodule(tap.path) for tap in (up, down))
    inner, outer = weight_at(first, up), weight_at(second, down)
    place = _find_activation(table, delta.site)
    scale, activation = _scale(delta), model.get_submodule(place)
    biases = [bias_or_zero(first, up), _bias(form.down).to(inner)]
    wider = _linear(torch.cat([inner, form.down.weight.to(inner)]), torch.cat(biases))
    bias = bias_or_zero(second, down) + (scale * _bias(form.up)).to(outer)
    added = (scale * form.up.weight).to(outer)
    model.set_submodule(up.path, wider)
    model.set_submodule(down.path, _linear(torch.cat([outer, added], 1), bias))
    model.set_submodule(place, SplitActivation(len(inner), activation, form.activation))


def _find_activation(table: Family, site: Site) -> str:
    """Return the path of the activation of the site's FFN."""
    assert table.activation is not None, "checked by find_obstacle"
    stack = table.stacks[site.stack]
    place = table.activation.replace("{f}", stack.ffn).removeprefix(".")
    return f"{stack.path}.{site.layer}.{place}"


def _bias(linear: Any) -> torch.Tensor:
    """Return the bias of one of the form's maps, or zeros."""
    zeros: torch.Tensor = linear.weight.new_zeros(linear.out_features)
    return zeros if linear.bias is None else linear.bias


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
