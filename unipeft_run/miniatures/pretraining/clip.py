"""clip_mini and vit_mini: configurations, tokenizer and model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from unipeft_run.miniatures.pretraining.pictures import MEAN, SIZE, STD
from unipeft_run.miniatures.pretraining.tokenizer import IDS, VOCABULARY
from unipeft_run.miniatures.sources import PACKAGED
from unipeft_run.miniatures.sources.rows import write_json

if TYPE_CHECKING:
    from transformers import CLIPModel, ViTForImageClassification

END, END_ID = "<end>", VOCABULARY - 1
UNUSED = "<translate>"  # the token of bart_mini with the highest id, which ends a text here
WIDTH, HEADS, VISION_LAYERS, TEXT_LAYERS, PATCH = 128, 4, 4, 3, 16
POSITIONS = 64
VISION: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": VISION_LAYERS,
    "num_attention_heads": HEADS,
    "image_size": SIZE,
    "patch_size": PATCH,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": TEXT_LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": IDS["<s>"],
    "pad_token_id": IDS["<pad>"],
    "eos_token_id": END_ID,
}


def build_clip() -> CLIPModel:
    """Build a randomly initialised CLIP, with the main components of bart_mini's embeddings."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config=TEXT,
        vision_config={**VISION, "projection_dim": WIDTH},
        projection_dim=WIDTH,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.copy_(reduce_embeddings())
    return model


def reduce_embeddings() -> Tensor:
    """Return the `WIDTH` principal components of bart_mini's embeddings, with CLIP's deviation."""
    trained = load_file(PACKAGED / "bart_mini" / "model.safetensors")["model.shared.weight"].float()
    trained -= trained.mean(0)
    _, _, directions = torch.linalg.svd(trained, full_matrices=False)
    reduced = trained @ directions[:WIDTH].T
    return 0.02 * reduced / reduced.std()


def build_vit() -> ViTForImageClassification:
    """Build a randomly initialised ViT of the same shape as the vision tower."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**VISION))


def save_tokenizer(folder: Path) -> Tokenizer:
    """Write the tokenizer of bart_mini, with `<s> text <end>`.

    `<end>` has the highest id, so that CLIPModel finds it by either of its two rules.
    """
    content = (PACKAGED / "bart_mini" / "tokenizer.json").read_text(encoding="utf-8")
    parsed = json.loads(content.replace(json.dumps(UNUSED), json.dumps(END)))
    start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<s>", END))
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    parsed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, text, end],
        "pair": [start, text, second, end],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for token, number in (("<s>", IDS["<s>"]), (END, END_ID))
        },
    }
    write_json(folder / "tokenizer.json", parsed)
    config = json.loads((PACKAGED / "bart_mini" / "tokenizer_config.json").read_bytes())
    others = [token for token in config["extra_special_tokens"] if token != UNUSED]
    changed = {"model_max_length": POSITIONS, "eos_token": END, "extra_special_tokens": others}
    write_json(folder / "tokenizer_config.json", config | changed)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def save_preprocessor(folder: Path) -> None:
    """Write `preprocessor_config.json`: size and normalisation of the pictures."""
    channels = {"image_mean": [MEAN] * 3, "image_std": [STD] * 3}
    size = {"height": SIZE, "width": SIZE}
    write_json(folder / "preprocessor_config.json", {"size": size, **channels})
