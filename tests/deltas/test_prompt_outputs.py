"""Prompts leave as many outputs as inputs; caches without room for a prompt are refused."""

from typing import Any

import pytest
import torch
import transformers
from named_deltas import perturb
from tiny_families import CONFIGS, backbone, batch
from transformers import StaticCache

import unipeft
from unipeft_run.errors import UserError

IDS = torch.arange(5, 23).view(2, 9)
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PER_TOKEN = ("TokenClassification", "MaskedLM", "QuestionAnswering")
MODELS = [(f"{family}For{task}", family) for family in ("Bert", "Roberta") for task in PER_TOKEN]
MODELS += [("BertForPreTraining", "Bert"), ("ViTForMaskedImageModeling", "ViT")]


def build(kind: str, family: str) -> Any:
    torch.manual_seed(0)
    sizes = {**CONFIGS[family.lower()], "num_labels": 2}
    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, kind)(config).eval()


@torch.no_grad()
def outputs(model: Any) -> Any:
    is_image = model.main_input_name == "pixel_values"
    return model(pixel_values=PIXELS) if is_image else model(input_ids=IDS)


@pytest.mark.parametrize(("kind", "family"), MODELS)
def test_a_prompt_adds_no_outputs(kind: str, family: str) -> None:
    model = build(kind, family)
    plain = outputs(model)
    unipeft.attach(model, "prompt", bottleneck=4)
    prompted = outputs(model)
    for name, expected in plain.items():
        assert prompted[name].shape == expected.shape, name
        assert not torch.equal(prompted[name], expected), name


def test_an_answer_is_read_at_its_own_tokens() -> None:
    model = build("BertForQuestionAnswering", "Bert")
    unipeft.attach(model, "prompt", bottleneck=4)
    positions = {"start_positions": torch.tensor([0, 8]), "end_positions": torch.tensor([3, 8])}
    output = model(input_ids=IDS, **positions)
    start, end = (
        torch.nn.functional.cross_entropy(logits, position)
        for logits, position in zip(
            (output.start_logits, output.end_logits), positions.values(), strict=True
        )
    )
    torch.testing.assert_close(output.loss, (start + end) / 2)


@pytest.mark.parametrize(
    ("kind", "family"),
    [("BertForSequenceClassification", "Bert"), ("ViTForImageClassification", "ViT")],
)
def test_a_classifier_reads_the_first_vector_of_the_prompt(kind: str, family: str) -> None:
    model = build(kind, family)
    unipeft.attach(model, "prompt", bottleneck=4)
    perturb(model, strength=0.5)
    output = model(
        **({"pixel_values": PIXELS} if family == "ViT" else {"input_ids": IDS}),
        output_hidden_states=True,
    )
    first = output.hidden_states[-1][:, 0]
    if family == "ViT":
        expected = model.classifier(model.vit.layernorm(first))
    else:
        expected = model.classifier(torch.tanh(model.bert.pooler.dense(first)))
    torch.testing.assert_close(output.logits, expected)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prompt_refuses_a_cache_of_fixed_size(family: str) -> None:
    model = backbone(family)
    unipeft.attach(model, "prompt", bottleneck=4)
    ids = batch(family)["input_ids"]
    message = "past_key_values is a StaticCache, .*; use a DynamicCache"
    with pytest.raises(UserError, match=message):
        model.generate(ids, max_new_tokens=3, cache_implementation="static", disable_compile=True)
    with pytest.raises(UserError, match=message):
        model(ids, past_key_values=StaticCache(config=model.config, max_cache_len=32))
