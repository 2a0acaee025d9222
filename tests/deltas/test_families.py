"""Every family x method: training, resuming, both attention implementations, generation, folding.

The tiny models of tests/support/tiny_families.py have grouped-query attention, merged matrices,
gated FFNs, relative positions and two towers.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_families
import torch
from attached_models import METHODS
from sampling import sampled

import unipeft
from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.sites import find_sites
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.deltas.fold import fold
from unipeft_run.deltas.positions import PositionShift
from unipeft_run.errors import UserError
from unipeft_run.training.progress import Progress
from unipeft_run.training.state import TrainingState, parameter_values

NEW = [name for name in FAMILIES if name not in ("bart", "mbart", "roberta")]
CELLS = [(family, method) for family in NEW for method in METHODS]
# a cell has no meaning -> the start of its message
WITHOUT_MEANING = {
    **{(family, "bitfit"): "unfreeze: '\\*bias' matches no parameter" for family in NEW},
    ("clip", "prompt"): "the representation .* matches no site of clip",
}
WITH_BIASES = ("bert", "vit", "clip", "gpt2", "qwen2")
SMALL = {"input": {"bottleneck": 5}}


def is_illegal(family: str, method: str) -> bool:
    return (family, method) in WITHOUT_MEANING and family not in (
        WITH_BIASES if method == "bitfit" else ()
    )


def choices(method: str) -> dict[str, Any]:
    if method == "prompt":
        return SMALL
    if method == "unipelt":  # the published gate reads the future
        return {slot: {"composition.per": "position"} for slot in ("attn", "ffn", "matrix")}
    return {}


def perturbed(family: str, method: str, core: str = "sdpa") -> Any:
    """Build a model in float64 whose deltas are far from their initialisation."""
    model = tiny_families.backbone(family).double()
    model.set_attn_implementation(core)
    unipeft.attach(model, method, **choices(method))
    torch.manual_seed(3)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch(family: str) -> dict[str, torch.Tensor]:
    return {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in tiny_families.batch(family).items()
    }


def check(family: str, method: str) -> None:
    """Check one cell: attention implementations agree, everything trains, caching is exact."""
    if is_illegal(family, method):
        with pytest.raises(UserError, match=WITHOUT_MEANING[family, method]):
            perturbed(family, method)
        return
    model, eager = perturbed(family, method), perturbed(family, method, "eager")
    output = model(**batch(family))
    torch.testing.assert_close(eager(**batch(family)).loss, output.loss, rtol=1e-5, atol=1e-6)
    output.loss.backward()
    untrained = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not untrained
    check_resuming(family, method)
    if family in tiny_families.GENERATING:
        assert generate(model, family, cache=True) == generate(model, family, cache=False)


def trainer(family: str, method: str) -> TrainingState:
    model = perturbed(family, method).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    torch.manual_seed(7)
    return TrainingState(model, optimizer, schedule, None, Progress())


def update(state: TrainingState, family: str) -> None:
    state.optimizer.zero_grad()
    state.model(**batch(family)).loss.backward()
    state.optimizer.step()
    state.schedule.step()


def check_resuming(family: str, method: str) -> None:
    """Check that two updates equal one update, a checkpoint, and one more in a new process."""
    whole = trainer(family, method)
    for _ in range(2):
        update(whole, family)
    expected = parameter_values(whole.model)
    first = trainer(family, method)
    update(first, family)
    content = first.gather()
    resumed = trainer(family, method)
    resumed.restore(content)
    update(resumed, family)
    for name, value in parameter_values(resumed.model).items():
        assert torch.equal(value, expected[name]), name


def generate(model: Any, family: str, *, cache: bool) -> list[list[int]]:
    inputs = {n: t for n, t in batch(family).items() if n in ("input_ids", "attention_mask")}
    if FAMILIES[family].task_type == "causal":
        inputs = {name: tensor.flip(1) for name, tensor in inputs.items()}  # padded on the left
    ids = model.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        num_beams=1,
        use_cache=cache,
        eos_token_id=None,
        pad_token_id=0,
    )
    return ids.tolist()


def test_the_size_of_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    legal = sum(not is_illegal(*cell) for cell in CELLS)
    with capsys.disabled():
        print(f"\n{len(METHODS)} methods x {len(NEW)} new families: {legal} of {len(CELLS)} cells")
    assert legal > 200


@pytest.mark.parametrize(("family", "method"), CELLS[:: 2 * len(NEW) + 1])
def test_a_sample_of_the_matrix(family: str, method: str) -> None:
    check(family, method)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_every_cell(family: str, method: str) -> None:
    check(family, method)


@pytest.mark.parametrize("family", NEW)
def test_the_table_names_modules_that_exist(family: str) -> None:
    table, model = FAMILIES[family], tiny_families.backbone(family)
    for representation in (*table.attention, *table.ffn):
        sites = list(find_sites(model, model.config, sites=[representation]))
        assert sites, representation
        for site in sites:
            for tap in (site.read, site.write, site.residual):
                assert tap is not None
                model.get_submodule(tap.path)


@pytest.mark.parametrize(
    ("family", "method"),
    sampled(
        [
            *((family, "lora_attn") for family in NEW),
            *((family, "lora_ffn") for family in NEW),
            *((family, "ia3") for family in NEW),
            *((family, "parallel_ffn") for family in ("t5", "bert", "gpt2", "vit", "clip")),
            ("llama", "mam"),
        ],
        2,
    ),
)
def test_folding_changes_no_output(family: str, method: str) -> None:
    model = perturbed(family, method)
    if method == "mam":
        with pytest.raises(UserError, match="the hidden units of the FFN are gated"):
            fold(model)
        return
    with torch.no_grad():
        expected, folded = model(**batch(family)).loss, fold(model)(**batch(family)).loss
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-9)


def test_a_shifted_prefix_is_a_prefix_with_later_positions() -> None:
    model = perturbed("gpt2", "prefix_nomlp")
    (_, first), *_ = find_deltas(model)
    length = first.form.memory()[0].size(0)
    ids = tiny_families.batch("gpt2")["input_ids"][:1]
    positions = torch.arange(ids.size(1))[None] + 2
    with torch.no_grad():
        expected = model(input_ids=ids, position_ids=positions).logits
    model.transformer.register_forward_pre_hook(PositionShift(2).shift, with_kwargs=True)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, expected)
    shifted = tiny_families.backbone("gpt2").double()
    unipeft.attach(shifted, "prefix_nomlp", attn={"bottleneck": 7, "form.positions": "shifted"})
    hooks = shifted.transformer._forward_pre_hooks.values()
    assert PositionShift(7) in [getattr(hook, "__self__", None) for hook in hooks]
    assert length == 200


def test_positions_are_shifted_only_where_the_model_is_told_them() -> None:
    model = tiny_families.backbone("t5")
    with pytest.raises(UserError, match="this backbone takes no position_ids; use null"):
        unipeft.attach(model, "prefix", attn={"form.positions": "shifted"})
