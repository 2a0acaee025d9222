"""The YAML of conf/ against the paper's tables and the released scripts."""

from __future__ import annotations

import re

import pytest
import yaml
from tiny_config import resolved

from unipeft_run.config.design_space import load_axis_file
from unipeft_run.config.messages import options, own_options
from unipeft_run.extensions import conf_dir

METHODS = own_options("method")
SEQ2SEQ, GLUE = ("xsum", "wmt16_en_ro"), ("mnli", "sst2")
TASKS, OWN_DATA = (*SEQ2SEQ, *GLUE), ("text2text", "text_classification")
NOT_IN_THE_PAPER = (
    *("cola", "mrpc", "qqp", "stsb", "qnli", "rte", "wnli"),
    *("commonsense", "piqa", "boolq", "obqa", "arc_challenge", "gsm8k", "causal_lm"),
    *("cifar100", "didemo"),
)


def test_tasks_and_methods_match_the_contract() -> None:
    assert set(options("task")) == {*TASKS, *OWN_DATA, *NOT_IN_THE_PAPER}
    assert {method for method in METHODS if "/" not in method} == {
        *("full", "none", "bitfit", "prompt", "prefix", "prefix_nomlp", "houlsby", "pfeiffer"),
        *("adapter_attn", "adapter_ffn", "parallel_attn", "parallel_ffn", "scaled_parallel_ffn"),
        *("mh_parallel", "lora_attn", "lora_ffn", "prefix_lora_ffn", "parallel_attn_ffn", "mam"),
        *("ia3", "compacter", "unipelt", "dora", "vera", "adaptformer"),
    }


@pytest.mark.parametrize(
    ("task", "scale"),
    [
        *(pytest.param(task, "mini", marks=pytest.mark.slow) for task in TASKS),
        *(pytest.param(task, "paper", marks=pytest.mark.slow) for task in ("wmt16_en_ro", "sst2")),
        *(("xsum", "paper"), ("mnli", "paper")),
    ],
)
def test_every_method_composes_and_is_legal(task: str, scale: str) -> None:
    steps, scales = set(), ["scale=mini"] if scale == "mini" else []
    for method in METHODS:
        config = resolved(f"task={task}", f"method={method}", *scales)
        assert (config["method"], config["task"]["name"], config["scale"]) == (method, task, scale)
        steps.add((config["recipe"]["max_steps"], config["recipe"]["epochs"]))
    if scale == "mini":
        assert len(steps) == 1, "in miniature every method has equal steps"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_headed_by_one_sentence_and_its_equations(method: str) -> None:
    text = (conf_dir() / "method" / f"{method}.yaml").read_text(encoding="utf-8")
    header = re.match(r"(?:#.*\n)+", text)
    assert header is not None
    package, sentence, *equations = header[0].splitlines()
    assert package == "# @package _global_"
    assert re.match(r"# \w", sentence)
    assert equations and len(equations) <= 3
    for equation in equations:
        assert re.match(r"#     h <- .*   .*(eq\. \(\d|section \d)", equation)
    assert not re.search(r"\d\.\d %|\d\d\.\d|Table", text), "scores are in conf/experiment"


@pytest.mark.parametrize("group", ["form", "insertion", "representation", "composition"])
def test_an_axis_file_starts_with_a_description(group: str) -> None:
    for name in options(group):
        text = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# "), f"{group}/{name}"
        data = yaml.safe_load(text)
        assert group in load_axis_file(group, name), "by itself or by what it builds on"
        assert set(data) <= {group, "defaults", "bottleneck", "scale", "mlp_width"}


PAPER_SIZES = {  # of the released scripts: (attn.bottleneck, ffn.bottleneck, ffn.scale)
    ("xsum", "mam"): (30, 512, 4),
    ("wmt16_en_ro", "mam"): (30, 512, 4),
    ("mnli", "mam"): (16, 16, 2),
    ("sst2", "mam"): (16, 16, 2),
    ("xsum", "prefix"): (200, None, None),
    ("xsum", "houlsby"): (200, 200, None),
    ("mnli", "houlsby"): (16, 16, None),
    ("xsum", "pfeiffer"): (None, 600, None),
    ("xsum", "lora_ffn"): (None, 102, 4),
    ("xsum", "scaled_parallel_ffn"): (None, 512, 4),
    ("xsum", "prefix_lora_ffn"): (30, 102, 4),
    ("wmt16_en_ro", "prefix_lora_ffn"): (30, 102, 2),
    ("xsum", "parallel_attn_ffn"): (30, 512, None),
    ("xsum", "mh_parallel"): (200, None, None),
}


@pytest.mark.parametrize(("task", "method"), PAPER_SIZES)
def test_sizes_follow_the_paper(task: str, method: str) -> None:
    config = resolved(f"task={task}", f"method={method}")
    attn, ffn = config["attn"] or {}, config["ffn"] or {}
    sizes = attn.get("bottleneck"), ffn.get("bottleneck"), ffn.get("scale")
    assert sizes == PAPER_SIZES[task, method]


def test_sizes_of_attention_lora_and_of_prompts() -> None:
    lora = {task: resolved(f"task={task}", "method=lora_attn")["attn"] for task in TASKS}
    assert [(lora[t]["bottleneck"], lora[t]["scale"]) for t in SEQ2SEQ] == [(200, 2), (200, 2)]
    assert [(lora[t]["bottleneck"], lora[t]["scale"]) for t in GLUE] == [(16, 2), (16, 2)]
    assert resolved("task=xsum", "method=prompt")["input"]["bottleneck"] == 300
    assert resolved("task=wmt16_en_ro", "method=prompt")["input"]["bottleneck"] == 200


MAM_FFN = "method=mam", "task=xsum"


def test_initialisation_and_norms_match_the_released_code() -> None:
    assert resolved(*MAM_FFN)["ffn"]["form"]["init"] == "lora"
    houlsby = resolved("task=xsum", "method=houlsby")
    assert (houlsby["ffn"]["form"]["init"], houlsby["ffn"]["form"]["norm"]) == ("bert", "none")
    for method in ("houlsby", "adapter_attn", "parallel_attn", "parallel_attn_ffn"):
        form = resolved("task=xsum", f"method={method}")["attn"]["form"]
        assert (form["init"], form["norm"], form["dropout"]) == ("bert", "in", "attention")
    lora = resolved("task=xsum", "method=lora_ffn")["ffn"]["form"]
    assert (lora["bias"], lora["activation"], lora["input_dropout"]) == (False, "identity", 0.1)


RECIPES = {  # of the released scripts
    "xsum": {
        "optim": {"lr": 5e-5, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01},
        "recipe": {
            "max_steps": 100_000,
            "batch_size": 16,
            "max_tokens": None,
            "accumulation": 4,
            "max_grad_norm": 0.1,
            "label_smoothing": 0.1,
            "warmup_steps": 0,
            "warmup_ratio": 0,
            "eval_every": 3000,
            "eval_limit": 1600,
            "log_every": 100,
        },
        "task": {
            "max_source_length": 512,
            "max_target_length": 128,
            "eval_target_length": 60,
            "selection": "rouge2",
        },
        "backbone": {"name": "bart_large", "hub": "facebook/bart-large", "config": {}},
    },
    "wmt16_en_ro": {
        "optim": {"lr": 5e-5, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.01},
        "recipe": {
            "max_steps": 50_000,
            "batch_size": None,
            "max_tokens": 4096,
            "accumulation": 4,
            "max_grad_norm": 1,
            "label_smoothing": 0.1,
            "warmup_steps": 0,
            "warmup_ratio": 0,
            "eval_every": 5000,
            "eval_limit": 1600,
            "log_every": 100,
        },
        "task": {
            "max_source_length": 150,
            "max_target_length": 150,
            "eval_target_length": 150,
            "selection": "loss",
        },
        "backbone": {
            "name": "mbart_large_cc25",
            "hub": "facebook/mbart-large-cc25",
            "config": {"dropout": 0.1, "attention_dropout": 0},
        },
    },
    "mnli": {
        "optim": {"lr": 1e-4, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.1},
        "recipe": {
            "max_steps": None,
            "epochs": 10,
            "batch_size": 32,
            "max_tokens": None,
            "accumulation": 1,
            "max_grad_norm": 1,
            "label_smoothing": 0,
            "warmup_steps": 0,
            "warmup_ratio": 0.06,
            "eval_every": None,
            "eval_limit": 1600,
            "log_every": 50,
        },
        "task": {"max_source_length": 512, "selection": "accuracy"},
        "backbone": {"name": "roberta_base", "hub": "roberta-base", "config": {}},
    },
}
RECIPES["sst2"] = RECIPES["mnli"]
DECODING = {
    "xsum": {"num_beams": 6, "max_length": 60, "min_length": 10, "no_repeat_ngram_size": 3},
    "wmt16_en_ro": {"num_beams": 5, "max_length": 150, "min_length": 1, "no_repeat_ngram_size": 0},
}


@pytest.mark.parametrize("task", TASKS)
def test_recipes_match_the_released_scripts(task: str) -> None:
    config = resolved(f"task={task}", "method=mam")
    for section, expected in RECIPES[task].items():
        found = {key: config[section][key] for key in expected}
        assert found == expected
    assert (config["optim"]["name"], config["optim"]["lr_end"]) == ("adamw_official", 1e-7)
    assert (config["optim"]["schedule"], config["seed"]) == ("polynomial", 42)
    decoding = config["evaluation"]["decoding"]
    assert (decoding is None) == (task in GLUE)
    if decoding is not None:
        assert {key: decoding[key] for key in DECODING[task]} == DECODING[task]
        assert decoding["length_penalty"] == 1


@pytest.mark.parametrize(
    ("method", "seq2seq", "encoder"),
    [("lora_attn", 2e-3, 5e-4), ("bitfit", 4e-3, 4e-3), ("full", 5e-4, 1e-4)],
)
def test_the_miniature_learning_rate_depends_on_the_method(
    method: str, seq2seq: float, encoder: float
) -> None:
    for task in TASKS:
        config = resolved(f"task={task}", f"method={method}", "scale=mini")
        assert config["optim"]["lr"] == (seq2seq if task in SEQ2SEQ else encoder)


@pytest.mark.parametrize(
    ("task", "backbone"),
    [
        ("xsum", "bart_mini"),
        ("wmt16_en_ro", "mbart_mini"),
        ("mnli", "roberta_mini"),
        ("sst2", "roberta_mini"),
    ],
)
def test_the_miniature_changes_data_backbone_and_precision(task: str, backbone: str) -> None:
    config = resolved(f"task={task}", "method=mam", "scale=mini")
    assert (config["backbone"]["name"], config["precision"]) == (backbone, "fp32")
    assert (config["task"]["mini"], config["task"]["path"]) == (task, None)
    assert (config["attn"]["bottleneck"], config["ffn"]["bottleneck"]) == (16, 64)
    assert resolved(f"task={task}", "method=mam")["task"]["mini"] is None


def test_another_backbone_and_a_debug_mode_override_the_recipe() -> None:
    config = resolved(
        "task=sst2", "method=mam", "scale=mini", "backbone=roberta_base", "debug=tiny"
    )
    assert config["backbone"]["name"] == "roberta_base"
    assert (config["recipe"]["max_steps"], config["limit"]["train"]) == (2, 8)
    overfit = resolved("task=xsum", "method=mam", "debug=overfit")
    assert (overfit["limit"]["train"], overfit["recipe"]["epochs"]) == (8, None)
