"""vit_mini: the vision tower of clip_mini in ViT's format.

CLIP normalises the embedded patches before its first layer, a ViT does not. Centring and scaling
by the mean norm are folded into the embeddings; what the norm of each patch changed is left to
further training.

Shapes: N pictures, D the width.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unipeft_run.miniatures.pretraining.clip import build_vit

if TYPE_CHECKING:
    from transformers import CLIPModel, ViTForImageClassification

NAMES = (
    (r"^encoder\.layers", "layers"),
    (r"self_attn\.out_proj", "attention.o_proj"),
    (r"self_attn", "attention"),
    (r"layer_norm1", "layernorm_before"),
    (r"layer_norm2", "layernorm_after"),
    (r"^post_layernorm", "layernorm"),
)


def rename(name: str) -> str:
    """Return ViT's name of a tensor of the vision tower."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def from_clip(model: CLIPModel, pictures: Tensor) -> ViTForImageClassification:
    """Build a ViT without a classifier from the vision tower; `pictures` give the mean norm."""
    tower = model.vision_model
    made = build_vit()
    made.classifier = torch.nn.Identity()
    state = {
        rename(name): value
        for name, value in tower.state_dict().items()
        if not name.startswith(("embeddings.", "pre_layrnorm."))
    }
    missing, unexpected = made.vit.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("embeddings.") for name in missing)
    _fold(tower, made.vit.embeddings, pictures)
    return made


@torch.no_grad()
def _fold(tower: Any, embeddings: Any, pictures: Tensor) -> None:
    """Set a ViT's embeddings to those of the tower followed by its first LayerNorm."""
    norm, source = tower.pre_layrnorm, tower.embeddings
    embedded = source(pictures)  # [N, 1 + patches, D]
    deviation = embedded.var(-1, unbiased=False).add(norm.eps).sqrt().mean(0)  # [1 + patches]
    patch, first = deviation[1:].mean(), deviation[:1]
    divisors = torch.cat([first, patch.expand(len(deviation) - 1)])[:, None]

    def centre(value: Tensor, dim: int) -> Tensor:
        return value - value.mean(dim, keepdim=True)

    positions = source.position_embedding.weight  # [1 + patches, D]
    embeddings.position_embeddings[0] = centre(positions, 1) * norm.weight / divisors + norm.bias
    embeddings.cls_token[0, 0] = centre(source.class_embedding, 0) * norm.weight / first
    weight = centre(source.patch_embedding.weight, 0) * (norm.weight / patch).view(-1, 1, 1, 1)
    embeddings.patch_embeddings.projection.weight.copy_(weight)
    embeddings.patch_embeddings.projection.bias.zero_()
