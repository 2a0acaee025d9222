"""Tiny decoder-only and T5 models with peaked predictions, and deltas for them.

The windows of sliding attention are shorter than the targets.
"""

from __future__ import annotations

import random
from functools import cache, partial
from typing import Any

import torch
import transformers
from attached_models import METHODS
from tiny_config import configured
from torch import nn
from transformers import GenerationConfig

from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.compositions import Add, Gated, Prepend, Scaled
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.forms.vectors import Vectors
from unipeft_run.deltas.gates import GatedMemory
from unipeft_run.deltas.slots import Slot, build_slots

PAD, EOS = 1, 2
TOKENS = {"vocab_size": 96, "bos_token_id": 0, "eos_token_id": EOS, "pad_token_id": PAD}
LLAMA: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GPT2: dict[str, Any] = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
T5: dict[str, Any] = {
    **TOKENS,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": PAD,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MODELS = {
    "llama": ("Llama", LLAMA),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": 5}),
    "qwen2": ("Qwen2", {**LLAMA, **WINDOW}),
    "qwen3": ("Qwen3", LLAMA),
    "gemma": ("Gemma", {**LLAMA, "num_key_value_heads": 1}),
    "gpt2": ("GPT2", GPT2),
    "t5": ("T5", {**T5, "feed_forward_proj": "relu"}),
    "t5_gated": ("T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
CLASSES = {"GPT2": "GPT2LMHeadModel", "T5": "T5ForConditionalGeneration"}


def build(family: str, seed: int = 0, core: str = "sdpa") -> Any:
    """Build a float64 model with varied targets, some of which end early."""
    torch.manual_seed(seed)
    name, settings = MODELS[family]
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config)
    head = nn.Linear(32, 96)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2 and not family.startswith("t5"):  # from 0.02 to 0.3
                parameter *= 15
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        head.bias[EOS] = random.Random(seed).uniform(1, 3)
    model.lm_head = head
    model.generation_config = GenerationConfig()
    model.set_attn_implementation(core)
    return model.eval().double()


def _heads(composition: Any, layers: Any = "all", **settings: Any) -> dict[str, Slot]:
    form = partial(Memory, length=3, **{"mlp_width": None, **settings})
    representation = {"sites": ["attn.heads"], "layers": layers}
    return {
        "attn": Slot(
            form=form,
            insertion="parallel",
            composition=composition,
            representation=representation,
        )
    }


def _bottleneck(slot: str, sites: list[str], insertion: str, **settings: Any) -> dict[str, Slot]:
    return {
        slot: Slot(
            form=partial(Bottleneck, rank=4, dropout=0.0, **settings),
            insertion=insertion,
            composition=partial(Scaled, scale=2.0),
            representation={"sites": sites},
        )
    }


PROMPT = Slot(
    form=partial(Vectors, length=3),
    insertion="parallel",
    composition=Prepend,
    representation={"sites": ["embedding"]},
)
DELTAS: dict[str, dict[str, Slot]] = {
    "prefix": _heads(Gated, query="scaled", mlp_width=8),
    "prefix_one_layer": _heads(Gated, layers=[1], query="scaled"),
    "prefix_shifted": _heads(Gated, query="scaled", positions="shifted"),
    "prefix_unscaled": _heads(Gated, query="unscaled"),
    "heads_relu": _heads(Add, query="scaled", activation="relu"),
    "lora": _bottleneck(
        "attn", ["attn.query", "attn.key", "attn.value"], "parallel", activation="identity"
    ),
    "parallel_ffn": _bottleneck("ffn", ["ffn"], "parallel", activation="relu"),
    "sequential_ffn": _bottleneck("ffn", ["ffn"], "sequential", activation="relu"),
    "prompt": {"input": PROMPT},
    "mam": {
        **_heads(Gated, query="scaled"),
        **_bottleneck("ffn", ["ffn"], "parallel", activation="relu"),
    },
    "gated_prefix": _heads(partial(GatedMemory, per="position"), query="scaled"),
    "gated_prefix_one_layer": _heads(
        partial(GatedMemory, per="position"), layers=[1], query="scaled"
    ),
    "gated_prefix_per_example": _heads(GatedMemory, query="scaled"),
}
SLOTTED = [method for method in METHODS if method not in ("bitfit", "full")]


@cache
def slots_of(method: str) -> dict[str, Slot]:
    """Return the slots of a method of `conf/`."""
    return build_slots(configured("task=xsum", f"method={method}", "scale=mini"))


def with_deltas(family: str, name: str, seed: int = 0, core: str = "sdpa") -> Any:
    """Build a model with the deltas of DELTAS or of a method, far from their initialisation."""
    model = build(family, seed, core)
    attach(model, DELTAS[name] if name in DELTAS else slots_of(name))
    model.double()
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
