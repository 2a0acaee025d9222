"""Tiny decoder-only models, and tasks and data for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_text
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.tasks.causal_lm import CausalLM
from unipeft_run.data.tasks.multiple_choice import MultipleChoice
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.task_types.registry import task_type_of

FAMILIES = ("llama", "gpt2")
GREEDY = DecodingConfig(num_beams=1, max_new_tokens=6, forced_eos=False, rules="transformers")
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
PAIRS = [
    {"prompt": "the cat sat", "response": "on the mat"},
    {"prompt": "a package that", "response": "shows the weather in the terminal"},
    {"prompt": "and the dog sat on", "response": "the cat"},
    {"prompt": "the", "response": "dog"},
]
QUESTIONS = [
    {"question": "who sat?", "choices": ["a mat", "the cat", "the weather"], "answer": 1},
    {"question": "what is shown?", "choices": ["the weather in the terminal", "dog"], "answer": 0},
    {"question": "where?", "choices": ["on", "the mat", "cat", "open file"], "answer": 1},
    {"question": "is the dog on the cat?", "choices": ["no", "yes"], "answer": 1},
]


def model(family: str, vocab_size: int, seed: int = 0) -> Any:
    """Return a random model whose predictions differ between inputs."""
    torch.manual_seed(seed)
    common = {"vocab_size": vocab_size, "initializer_range": 0.3, **TOKENS}
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**LLAMA, **common)).eval()
    return GPT2LMHeadModel(GPT2Config(**GPT2, **common)).eval()


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def pairs_task(folder: Path, **changed: Any) -> CausalLM:
    settings: dict[str, Any] = {
        "name": "causal_lm",
        "path": write(folder, PAIRS),
        "prompt_template": "{prompt} >",
        "response_template": " {response}",
        "max_source_length": 24,
        "max_target_length": 16,
    }
    return CausalLM(**{**settings, **changed})


def choice_task(folder: Path, **changed: Any) -> MultipleChoice:
    settings: dict[str, Any] = {
        "name": "arc_challenge",
        "path": write(folder, changed.pop("rows", QUESTIONS)),
        "prompt_template": "{question}",
        "response_template": " {choice}",
        "max_source_length": 120,
        "max_target_length": 30,
    }
    return MultipleChoice(**{**settings, **changed})


def evaluator(task: Any, family: str = "llama", **changed: Any) -> tuple[Evaluator, Any]:
    """Return an evaluator of `task` and a model."""
    tokenizer, kind, splits = tiny_text.bart_tokenizer(), task_type_of(task), task.load()
    own = model(family, len(tokenizer))
    settings: dict[str, Any] = {"batch_size": 2, "decoding": GREEDY, **changed}
    made = Evaluator(
        task,
        splits,
        task.encode(splits, tokenizer),
        tokenizer,
        collator=kind.build_collator(task, tokenizer, own),
        loss_fn=kind.build_loss(0.0),
        **settings,
    )
    return made, own
