"""Check where dropout is applied, in seeded training passes. The official code passes, too."""

from typing import Any

import torch
from tiny import backbone, batch
from torch.nn import functional as F

from unipeft_run.backbones import sites
from unipeft_run.deltas.attach import Slot, attach
from unipeft_run.deltas.compositions import Add
from unipeft_run.deltas.forms.bottleneck import Bottleneck


def _constant(site: Any) -> Bottleneck:
    """Build a bottleneck without dropout whose output is always 1."""
    form = Bottleneck(site, rank=1, init="lora", dropout=0.0)
    torch.nn.init.ones_(form.up.bias)
    return form


def _input_of(model: Any, path: str) -> torch.Tensor:
    """Return the input of the module at `path` in a seeded training pass."""
    inputs: list[torch.Tensor] = []
    module = model.get_submodule(path)
    hook = module.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    model.train()
    torch.manual_seed(3)
    with torch.no_grad():
        model(**batch(model.config.model_type))
    hook.remove()
    return inputs[0]


LAST_NORM = {
    "bart": "model.encoder.layers.0.final_layer_norm",
    "mbart": "model.encoder.layers.1.self_attn_layer_norm",
    "roberta": "roberta.encoder.layer.0.output.LayerNorm",
}
MIDDLE_NORM = {
    "bart": "model.encoder.layers.0.self_attn_layer_norm",
    "mbart": "model.encoder.layers.0.final_layer_norm",
    "roberta": "roberta.encoder.layer.0.attention.output.LayerNorm",
}


def _change(family: str, slot: str, site: str, path: str) -> torch.Tensor:
    """Measure the effect of a constant change of 1 in the first layer on the input of `path`."""
    expected = _input_of(backbone(family), path)
    model = backbone(family)
    representation = {"sites": [site], "layers": [0], "stacks": ["encoder"]}
    constant = Slot(
        form=_constant,
        insertion="sequential",
        representation=representation,
        composition=Add,
    )
    attach(model, {slot: constant})
    return _input_of(model, path) - expected


def ffn_change_follows_the_dropout(family: str) -> bool:
    """Check that the block's output is the backbone's plus 1 everywhere: nothing was dropped."""
    change = _change(family, "ffn", "ffn", LAST_NORM[family])
    return bool(torch.allclose(change, torch.ones_like(change), atol=1e-5))


def attention_change_precedes_the_dropout(family: str) -> bool:
    """Check that the change at the attention output is 1/(1 - p) or 0: it passed the dropout."""
    change = _change(family, "attn", "attn.output", MIDDLE_NORM[family])
    kept = change > 0.5
    expected = kept.float() / 0.9
    return (
        bool(torch.allclose(change, expected, atol=1e-5)) and 0.02 < 1 - kept.float().mean() < 0.3
    )


def _form(**settings: Any) -> tuple[Bottleneck, torch.Tensor]:
    model = backbone("bart")
    site = next(sites.find_sites(model, model.config, sites=["ffn"]))
    torch.manual_seed(0)
    form = Bottleneck(site, rank=8, **settings).train()
    torch.nn.init.normal_(form.up.weight)
    torch.nn.init.normal_(form.down.bias) if form.down.bias is not None else None
    return form, torch.randn(3, 7, 32)


def lora_drops_its_input(_: str) -> bool:
    """Check that LoRA computes Drop(x) A^T B^T."""
    form, x = _form(activation="identity", bias=False, dropout=0.0, input_dropout=0.5)
    torch.manual_seed(5)
    ours = form(x)
    torch.manual_seed(5)
    return torch.equal(ours, F.dropout(x, 0.5) @ form.down.weight.T @ form.up.weight.T)


def adapter_drops_after_its_activation(_: str) -> bool:
    """Check that an adapter computes Drop(relu(x W + b)) W + b."""
    form, x = _form(dropout=0.5)
    torch.manual_seed(5)
    ours = form(x)
    torch.manual_seed(5)
    hidden = F.dropout(F.relu(F.linear(x, form.down.weight, form.down.bias)), 0.5)
    return torch.equal(ours, F.linear(hidden, form.up.weight, form.up.bias))
