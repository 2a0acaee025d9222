"""The head of a task in models without a base module, or with a language model's head beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from named_deltas import perturb
from tiny_families import CONFIGS, backbone
from torch import nn

import unipeft
from unipeft_run.backbones.families import head_patterns

HEADS = {
    "T5ForQuestionAnswering": ("t5", ["qa_outputs.*"]),
    "T5ForConditionalGeneration": ("t5", []),
    "GPT2DoubleHeadsModel": ("gpt2", ["multiple_choice_head.*"]),
    "GPT2LMHeadModel": ("gpt2", []),
    "GPT2ForTokenClassification": ("gpt2", ["classifier.*"]),
    "BertForPreTraining": ("bert", ["cls.seq_relationship.*"]),
    "BertForNextSentencePrediction": ("bert", ["cls.*"]),
    "BertForMaskedLM": ("bert", []),
    "LlamaForSequenceClassification": ("llama", ["score.*"]),
    "CLIPModel": ("clip", []),
    "ViTForImageClassification": ("vit", ["classifier.*"]),
}


def build(kind: str, family: str, **settings: Any) -> Any:
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    return cls(cls.config_class(**{**CONFIGS[family], **settings})).eval()


@pytest.mark.parametrize("kind", HEADS)
def test_the_head_is_what_lies_outside_the_backbone(kind: str) -> None:
    family, head = HEADS[kind]
    model = build(kind, family)
    assert head_patterns(model) == head
    unipeft.attach(model, "lora_attn")
    trains = {n for n, p in model.named_parameters() if p.requires_grad and "delta_" not in n}
    assert bool(trains) == bool(head)
    assert all(name.startswith(head[0].removesuffix("*")) for name in trains)


def test_an_untied_language_head_is_no_head() -> None:
    model = build("GPT2LMHeadModel", "gpt2", tie_word_embeddings=False)
    assert any(name.startswith("lm_head.") for name, _ in model.named_parameters())
    assert not head_patterns(model)


def test_a_parameter_of_a_users_own_model_is_a_head() -> None:
    model = backbone("llama")
    model.temperature = nn.Parameter(torch.ones(1))
    model.value = nn.Linear(32, 1)
    assert head_patterns(model) == ["temperature", "value.*"]
    unipeft.attach(model, "lora_attn")
    assert model.temperature.requires_grad and model.value.weight.requires_grad


@torch.no_grad()
def test_the_head_of_t5_is_stored(tmp_path: Path) -> None:
    kind, ids = "T5ForQuestionAnswering", torch.arange(5, 23).view(2, 9)
    model, other = build(kind, "t5"), build(kind, "t5")
    nn.init.normal_(other.qa_outputs.weight)  # another head
    unipeft.attach(model, "lora_attn")
    perturb(model)
    unipeft.save(model, tmp_path / "saved")
    unipeft.load(other, tmp_path / "saved")
    assert torch.equal(other.qa_outputs.weight, model.qa_outputs.weight)
    assert torch.equal(other(input_ids=ids).start_logits, model(input_ids=ids).start_logits)
