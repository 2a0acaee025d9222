"""The design space: legal points train, equivalent ones compute the same, illegal ones say why."""

import re
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling import sampled
from tiny import FAMILIES, backbone, batch

from unipeft_run.backbones.families import FAMILIES as EVERY_FAMILY
from unipeft_run.commands.space import main
from unipeft_run.config import compose, resolve
from unipeft_run.config.design_space import (
    Point,
    combinations,
    equal_points,
    find_objections,
    legal_points,
)
from unipeft_run.config.schema import SLOTS
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.counting.budget import LinearCount, count_at, find_candidates, measure
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.deltas.delta_file import load_delta, save_delta, tabulate_parameters
from unipeft_run.deltas.slots import build_slot, build_slots, stored_form

POINTS = [point for slot in SLOTS for point in legal_points(slot)]
TURNS = [(list(FAMILIES)[i % 3], point) for i, point in enumerate(POINTS)]
EQUAL = [
    (family, point, others[0])
    for family, point in TURNS
    if (
        others := [p for p, on in equal_points(point.compose(), point.slot).items() if family in on]
    )
    and others[0] != point
]
FOURTH = 4  # no multiple of three, so that the fast tests have points of all families


def point_id(parts: tuple[Any, ...]) -> str:
    return "-".join(part if isinstance(part, str) else " ".join(part.overrides) for part in parts)


def model_at(family: str, point: Point, fold: bool = False) -> Any:
    content = point.compose()
    model = backbone(family)
    torch.manual_seed(1)
    attach(model, {point.slot: build_slot(point.slot, stored_form(content) if fold else content)})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("turn", sampled(((turn,) for turn in TURNS), FOURTH), ids=point_id)
def test_a_legal_point_trains(turn: tuple[str, Point]) -> None:
    family, point = turn
    model = model_at(family, point)
    model(**batch(family)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("pair", sampled(((pair,) for pair in EQUAL), FOURTH), ids=point_id)
def test_equal_points_compute_the_same_from_their_stored_tensors(
    pair: tuple[str, Point, Point], tmp_path: Path
) -> None:
    family, point, other = pair
    model = model_at(family, point)
    save_delta(model, tmp_path, {})
    twin = model_at(family, other, fold=True)
    load_delta(twin, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(twin(**batch(family)).logits, model(**batch(family)).logits)


def test_the_two_readings_of_the_parallel_adapter_differ_only_in_mbart() -> None:
    paper = Point("ffn", "bottleneck", "parallel", "ffn", "add")
    normed = Point("ffn", "bottleneck", "parallel", "ffn_normed", "add")
    assert set(EVERY_FAMILY) - set(equal_points(normed.compose(), "ffn")[paper]) == {"mbart"}
    for family in FAMILIES:
        logits = [model_at(family, p)(**batch(family)).logits for p in (paper, normed)]
        assert torch.allclose(*logits) == (family != "mbart")


def test_objections_are_single_lines() -> None:
    for slot in SLOTS:
        for point in combinations(slot):
            for sentence in find_objections(point):
                assert sentence and "\n" not in sentence


def test_counts_of_the_design_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["slot", *SLOTS, "all"]
    numbers = {line[:12].strip(): line.split()[-len(SLOTS) - 1 :] for line in lines[1:-1]}
    for index, slot in enumerate(SLOTS):
        assert int(numbers["combinations"][index]) == len(list(combinations(slot)))
        legal = int(numbers["legal"][index])
        assert legal == len(legal_points(slot))
        assert 0 < int(numbers["distinct on"][index]) <= legal
    filled = [len(legal_points(slot)) + 1 for slot in SLOTS]
    assert int(numbers["legal"][-1]) == prod(filled) - 1
    families = ",".join(line for line in lines if line.startswith("distinct on"))
    assert all(family in families for family in EVERY_FAMILY)


EXPLAINED = {
    "form@ffn=bottleneck insertion@ffn=sequential representation@ffn=ffn composition@ffn=add": (
        "slot ffn: legal, but equivalent"
    ),
    "form@ffn=low_rank insertion@ffn=parallel representation@ffn=ffn_up_down "
    "composition@ffn=scaled": "slot ffn: legal\n",
    "form@ffn=bottleneck insertion@ffn=parallel representation@ffn=ffn composition@ffn=scaled "
    "ffn.scale=1": "composition@ffn=add",
    "form@ffn=bottleneck_zero insertion@ffn=post_norm representation@ffn=ffn_block "
    "composition@ffn=add": "form.init differs",
    "form@attn=memory insertion@attn=parallel representation@attn=heads composition@attn=gated "
    "attn.form.mlp_width=null": "equivalent to form@attn=memory ",
    "form@ffn=bottleneck insertion@ffn=sequential": "legal, with one of",
    "form@ffn=memory": "slot ffn: illegal: form memory needs the queries",
    "form@ffn=bottleneck composition@ffn=gated": "slot ffn: illegal: composition gated needs",
    "representation@ffn=heads": "belongs to slot attn",
    "composition@attn=add attn.composition.norm=true form@attn=memory representation@attn=heads": (
        "not a head"
    ),
    "method=mam composition@ffn=gated": "illegal: slot ffn: composition gated",
    "method=mam": "slot attn: legal",
    "task=didemo method=prompt": "illegal: input.representation: clip has no embedding",
    "method=mam composition@ffn=add ffn.scale=3": "illegal: ffn.scale=3 has no effect",
    "method=bitfit": "*bias trains",
}


@pytest.mark.parametrize("arguments", EXPLAINED)
def test_explain(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments.split()]) == 0
    assert EXPLAINED[arguments] in capsys.readouterr().out


BOTTLENECK = "form@ffn=bottleneck insertion@ffn=parallel representation@ffn=ffn composition@ffn=add"
WRONG = {
    "": "the following arguments are required: list|count|explain|solve;",
    "lis": "lis is unknown (did you mean list?); choose from list, count, explain, solve",
    "list ffm": "choose from attn, ffn, input, matrix",
    "count x": "takes no arguments",
    "explain": "give axes",
    "explain form@fn=x": "did you mean form@ffn",
    "explain form@ffn=botleneck": "did you mean bottleneck",
    "solve task=xsum method=mam": "budget= is missing",
    "solve task=xsum method=mam budget=much": "must be a share, as in 1%",
    "solve task=xsum method=mam budget=-1%": "must be a share, as in 1%",
    "solve task=xsum method=mam budget=10": "mam stores at least 147,480",
    "solve task=xsum method=bitfit budget=1%": "no bottleneck to solve for",
    "solve task=sst2 method=lora_attn attn.form.rank=8 budget=1%": "does not depend on attn",
    "solve task=xsum method=mam form@input=vectors insertion@input=parallel input.bottleneck=3 "
    "representation@input=embedding composition@input=prepend budget=5%": "one slot or two",
    f"explain {BOTTLENECK} ffn.form.actvation=gelu": "did you mean ffn.form.activation",
    f"explain {BOTTLENECK} ffn.form.activation=foo": "choose from relu",
    f"explain {BOTTLENECK} ffn.bottleneck=x": "must be a whole number",
    "explain form@ffn=bottleneck ffn.botleneck=3": "did you mean ffn.bottleneck",
    "explain form@ffn=bottleneck ffn.bottleneck=0": "must be at least 1",
    f"explain {BOTTLENECK} ffn.bottleneck=[8": "ffn.bottleneck=[8 is not a value in YAML",
    "solve task=xsum method=mam budget=1e20": "the largest, stores",
    f"explain {BOTTLENECK} ffn.representation=5": "must be a section of keys",
    "solve task=xsum method=man budget=1%": "did you mean mam",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_named(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert WRONG[arguments] in shown.out + shown.err


def test_solve_comes_within_one_step_of_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", "task=xsum", "method=mam", "budget=1%"]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert len(rows) >= 5
    budget = 406_291_456 // 100
    for row in rows:
        prefix, width, stored = (int(n) for n in re.findall(r"\d+", row.replace(",", ""))[:3])
        # the formulae of the paper's Appendix B, and the biases
        assert stored == 36 * 2 * prefix * 1024 + 24 * (2 * 1024 * width + width + 1024)
        assert stored <= budget < stored + 24 * 2049
    assert "nearest" in rows[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task", "method"),
    [
        ("bart", "xsum", "mam"),
        ("mbart", "wmt16_en_ro", "houlsby"),
        ("roberta", "sst2", "prefix_lora_ffn"),
        ("bart", "xsum", "pfeiffer"),
        ("mbart", "wmt16_en_ro", "mh_parallel"),
        ("bart", "xsum", "prompt"),
    ],
)
def test_the_linear_count_equals_real_models(
    family: str, task: str, method: str, tmp_path: Path
) -> None:
    backbone(family).config.save_pretrained(tmp_path)
    arguments = [f"task={task}", f"method={method}", "scale=mini", "head=frozen"]
    arguments.append(f"backbone.path={tmp_path}")
    slots = tuple(resolve(compose(arguments)).slots())
    line = measure(arguments, slots)
    for sizes in ([3] * len(slots), [9, 5][: len(slots)]):
        given = [f"{slot}.bottleneck={n}" for slot, n in zip(slots, sizes, strict=True)]
        config, model = resolve(compose([*arguments, *given])), backbone(family)
        attach(model, build_slots(config), config.unfreeze)
        stored = tabulate_parameters(model, 1)["stored"]
        assert line.stored(sizes) == stored == count_at(arguments, slots, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["compacter", "adaptformer", "dora", "vera"])
def test_solutions_are_legal_and_within_the_budget(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A form may take multiples of a number only, as Compacter's does."""
    arguments = ["task=sst2", f"method={method}"]
    assert main(["solve", *arguments, "budget=0.5%"]) == 0
    heads, first = (
        re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()[2:4]
    )
    sizes = [f"{key}={n}" for key, n in zip(heads, first, strict=False) if "bottleneck" in key]
    table = counts(resolve(compose([*arguments, *sizes])))
    assert table["stored"] == int(first[heads.index("stored")].replace(",", ""))
    assert 0.45 < table["stored_percent"] <= 0.5


def test_a_method_without_sizes_cannot_be_solved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "task=sst2", "method=ia3", "budget=1%"]) == 2
    assert "method ia3 has no bottleneck to solve for" in capsys.readouterr().err


def test_a_large_budget_is_solved_at_once() -> None:
    line = LinearCount(("attn", "ffn"), 100, (73_728, 49_176))
    for sizes in find_candidates(line, 10**12, [30, 512]):
        assert 0 <= 10**12 - line.stored(sizes) < 49_176


@pytest.mark.parametrize("room", [100, 137, 900, 1234])
@pytest.mark.parametrize("steps", [(70, 30), (7, 30), (1, 5), (12, 12)])
def test_of_equal_candidates_the_nearest_to_the_own_share_wins(
    room: int, steps: tuple[int, int]
) -> None:
    line, (a, b) = LinearCount(("attn", "ffn"), 0, steps), steps
    share = 2 * a / (2 * a + 5 * b)
    pairs = [(n, (room - a * n) // b) for n in range(1, (room - b) // a + 1)]
    best = max(pairs, key=lambda pair: (line.stored(pair), -abs(a * pair[0] / room - share)))
    assert find_candidates(line, room, [2, 5])[0] == best


def test_the_first_candidate_is_the_closest_to_the_budget() -> None:
    line = LinearCount(("attn", "ffn"), 100, (70, 30))
    found = find_candidates(line, 1000, [2, 5])
    best = max(
        line.stored((a, b)) for a in range(1, 13) for b in range(1, 31) if 70 * a + 30 * b <= 900
    )
    assert line.stored(found[0]) == best
    assert all(100 < line.stored(sizes) <= 1000 and min(sizes) >= 1 for sizes in found)
