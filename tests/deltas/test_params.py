"""Exact parameter counts of the full-size backbones, without weights, and unipeft-params."""

import json
from itertools import product
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from sampling import sampled
from tiny_config import configured

from unipeft_run.backbones.architectures import ARCHITECTURES
from unipeft_run.commands import params
from unipeft_run.config.messages import own_options
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.counting.counts import count, counts
from unipeft_run.deltas.counting.paper_shares import paper_shares
from unipeft_run.deltas.delta_file import tabulate_parameters
from unipeft_run.deltas.slots import build_slots
from unipeft_run.interop.official import build_slots as build_official_slots
from unipeft_run.interop.options import complete_options

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "param_counts.json").read_text())
BACKBONES = {
    "bart": ("facebook/bart-large", {}),
    "mbart": ("facebook/mbart-large-cc25", {}),
    "roberta_mnli": ("roberta-base", {"num_labels": 3}),
    "roberta_sst2": ("roberta-base", {"num_labels": 2}),
}
CASES = [(name, case) for name in BACKBONES for case in RECORDED[name]]
FREED = {"bitfit": ["*bias*"], "none": ["*"]}
TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}
PRINTED = ["full", "bitfit", "prefix", "lora_attn", "mam"]
COUNTED = [method for method in own_options("method") if method not in ("none", "full")]


def full_size(name: str) -> Any:
    hub, changes = BACKBONES[name]
    return SimpleNamespace(**ARCHITECTURES[hub], **changes)


def unused(name: str, tune: dict[str, Any], trained: int) -> int:
    """Count the parameters that the official code builds but never uses."""
    relu = tune["attn_option"] == "cross_attn_relu"
    if name == "mbart":
        return 36 * 2 * 1024 if relu and tune["attn_mode"] == "prefix" else 0
    if not name.startswith("roberta"):
        return 0
    adapter = tune["ffn_mode"] == "adapter" and tune["ffn_option"] == "parallel"
    twice = 12 * (2 * 768 * tune["ffn_bn"] + tune["ffn_bn"] + 768) if adapter else 0
    return twice + (2 * (trained - twice) if "prefix" in tune["attn_mode"] else 0)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_recorded_count(name: str, case: str) -> None:
    recorded = RECORDED[name][case]
    tune = complete_options(recorded["options"])
    whole = tune["ffn_mode"] == "none" and tune["attn_mode"] in FREED
    freed = FREED[tune["attn_mode"]] if whole else []
    table = count(full_size(name), build_official_slots(tune), freed)
    assert table["backbone"] == recorded["backbone_params"]
    assert table["trained"] == table["receiving_gradient"] == recorded["trainable_used"]
    assert table["stored"] == recorded["trainable_paper_convention"]
    assert table["formula"] == recorded["appendix_B_formula"]
    assert round(table["stored_percent"], 4) == recorded["pct_paper_convention"]
    assert round(table["formula_percent"], 4) == recorded["pct_appendix_B"]
    built_there = table["trained"] + unused(name, tune, table["trained"])
    assert built_there == recorded["trainable_as_stored"]


@pytest.mark.parametrize(("method", "family"), sampled(product(COUNTED, TASKS), 4))
def test_the_counts_equal_those_of_a_model(method: str, family: str) -> None:
    config = configured(f"task={TASKS[family]}", f"method={method}", "scale=mini")
    slots = build_slots(config)
    model = tiny.backbone(family)
    size = sum(p.numel() for p in model.parameters())
    expected = count(model.config, slots, config.unfreeze)
    attach(model, slots, config.unfreeze)
    table = tabulate_parameters(model, size)
    assert {key: expected[key] for key in ("trained", "stored", "backbone")} == {
        key: table[key] for key in ("trained", "stored", "backbone")
    }
    model(**tiny.batch(family)).loss.backward()
    received = sum(p.numel() for p in model.parameters() if p.grad is not None)
    assert received == expected["receiving_gradient"]


def notes(*overrides: str) -> list[tuple[str, float, str]]:
    config = configured(*overrides)
    return [(r["where"], r["percent"], r["note"]) for r in paper_shares(config, counts(config))]


def test_the_papers_share_and_its_deviations_from_the_formula() -> None:
    assert notes("task=xsum", "method=mam") == [("Table 6", 6.7, "")]
    assert notes("task=xsum", "method=lora_ffn") == [
        ("Tables 5 and 12", 6.1, ""),
        ("Table 6", 7.2, "its own formula gives 6.17 % of BART-large; 7.2 % is r=120"),
    ]
    ((where, share, note),) = notes("task=wmt16_en_ro", "method=prefix", "attn.bottleneck=30")
    assert (where, share) == ("Table 4", 0.1)
    assert "its own formula gives 0.54 % of BART-large" in note
    assert "of mBART-large it is 0.36 %" in note
    ((where, *_),) = notes("task=wmt16_en_ro", "method=prefix")
    assert where == "Tables 3, 4, 6 and 12"
    assert notes("task=xsum", "method=prompt") == [
        ("Table 6", 0.1, "the paper prints no size; this one comes from the authors' plot script")
    ]
    assert notes("task=xsum", "method=prefix", "attn.bottleneck=7") == []
    assert notes("task=xsum", "method=mam", "attn.representation.stacks=[encoder]") == []


@pytest.mark.parametrize(
    ("task", "method"),
    sampled(product(["xsum", "wmt16_en_ro", "mnli", "sst2"], PRINTED), 3),
)
def test_the_paper_prints_its_own_methods(task: str, method: str) -> None:
    assert notes(f"task={task}", f"method={method}")


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert params.main(["task=mnli", "method=mam", "format=json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["trained"], table["stored"]) == (15_695_840, 599_232)
    assert [row["representation"] for row in table["sites"]] == ["attn.heads", "ffn"]
    assert sum(row["stored"] for row in table["sites"]) == table["stored"]
    assert table["paper"] == [{"where": "Table 2", "percent": 0.5, "note": ""}]


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert params.main(["task=xsum", "method=mam"]) == 0
    text = capsys.readouterr().out
    for part in ("86,810,976", "27,414,528", "6.75 %", "the paper prints 6.7 % in Table 6"):
        assert part in text


def test_a_local_model_needs_only_its_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.backbone("roberta")
    model.config.save_pretrained(tmp_path)
    overrides = ["task=mnli", "method=bitfit", f"backbone.path={tmp_path}", "format=json"]
    assert params.main(overrides) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["backbone"] == sum(prod(p.shape) for p in model.parameters())
    assert table["paper"] == [] or table["stored"] != 102_915


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task=xsum", "method=mam", "format=yaml"], "choose from text, json"),
        ([], "give task="),
        (["task=xsum", "method=mam", "attn.bottleneck=0"], "must be at least 1"),
        (["task=xsum", "method=mam", "unfreeze=[*.nothing]"], "matches no parameter"),
        ([], "nothing to count yet: give task="),
        (["task=sst2", "method=mam,lora_attn"], "method=mam,lora_attn names several values\n"),
        (["experiment=table6"], "experiment=table6 is 22 runs\n"),
        (["--task", "sst2", "method=mam"], "there is no option --task; write task=sst2"),
    ],
)
def test_a_user_error_gives_one_sentence(
    overrides: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert params.main(overrides) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ("task=xsum backbone.config.dropuot=0.3", "did you mean backbone.config.dropout"),
        ("task=xsum +backbone.config.num_labels=x", "there is no key backbone.config.num_labels"),
        ("task=xsum +backbone.config.encoder_layers=x", "must be a whole number from 1 to 1,000"),
    ],
)
def test_an_impossible_backbone_field_is_named(
    overrides: str, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert params.main(["method=mam", *overrides.split()]) == 2
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) == 1


def test_a_backbone_field_is_accepted_under_all_its_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for name in ("d_model", "hidden_size"):
        overrides = ("task=xsum", "method=mam", f"backbone.config.{name}=512", "format=json")
        assert params.main([*overrides]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["backbone"])
    assert sizes[0] == sizes[1] < 200_000_000
