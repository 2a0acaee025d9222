"""Exchange LoRA with PEFT: equal logits both ways; anything else is refused with the reason."""

import copy
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_families
import torch
import transformers
from sampling import sampled
from tiny import backbone, batch
from tiny_config import configured

import unipeft
from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.probe import make_probe
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError
from unipeft_run.interop.peft import CONFIG, export_peft, import_peft

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # PEFT's warnings about the hub and a transformers name
    "ignore::UserWarning:peft", "ignore:.*is_gradient_checkpointing:FutureWarning"
)

TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}
BOTH = (
    "lora_attn",
    "form@ffn=low_rank",
    "insertion@ffn=parallel",
    "representation@ffn=ffn_up_down",
    "composition@ffn=learned_scale",
    "ffn.bottleneck=3",
)
QUERIES = (
    "form@matrix=low_rank",
    "insertion@matrix=parallel",
    "representation@matrix=query_value",
    "composition@matrix=scaled",
    "matrix.representation.sites=[attn.query]",
    "matrix.bottleneck=3",
)
CELLS = {
    "attention": ("lora_attn",),
    "FFN": ("lora_ffn",),
    "both, of two ranks": BOTH,
    "keys and values": ("lora_attn", "representation@attn=key_value"),
    "part": ("lora_ffn", "ffn.representation.layers=[1]"),
    "two at the queries": ("lora_attn", *QUERIES, "matrix.scale=4"),
    "two of one scale": ("lora_attn", *QUERIES, "attn.scale=3", "matrix.scale=3"),
}


def base(family: str) -> Any:
    """Return a backbone; its classifier differs each time."""
    model = backbone(family).double()
    if family == "roberta":
        torch.seed()
        torch.nn.init.normal_(model.classifier.out_proj.weight)
    return model


def trained(family: str, method: str, *overrides: str) -> Any:
    config = configured(f"task={TASKS[family]}", f"method={method}", "scale=mini", *overrides)
    model = base(family)
    attach(model, build_slots(config), config.unfreeze)
    perturb(model)
    return model


@torch.no_grad()
def perturb(model: Any) -> None:
    for _, delta in find_deltas(model):
        for parameter in delta.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


@torch.no_grad()
def logits(model: Any, family: str) -> torch.Tensor:
    return model.eval()(**batch(family)).logits


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-12 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize(("cell", "family"), sampled(product(CELLS, TASKS), 2))
def test_peft_loads_what_we_export(cell: str, family: str, tmp_path: Path) -> None:
    model = trained(family, *CELLS[cell])
    export_peft(model, tmp_path, "the backbone")
    theirs = peft.PeftModel.from_pretrained(base(family), tmp_path)
    assert close(logits(theirs, family), logits(model, family))
    assert not close(logits(base(family), family), logits(model, family))


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_an_exported_lora_is_imported_again(cell: str, family: str, tmp_path: Path) -> None:
    model, again = trained(family, *CELLS[cell]), base(family)
    export_peft(model, tmp_path)
    import_peft(again, tmp_path)
    assert close(logits(again, family), logits(model, family))
    free = {name for name, p in again.named_parameters() if p.requires_grad}
    assert all(".delta_" in name or name.startswith("classifier.") for name in free)


FUSED = {
    "queries and values": ("method=lora_attn",),
    "queries, twice": ("method=lora_attn", *QUERIES, "matrix.scale=4"),
    "keys": ("method=lora_attn", "attn.representation.sites=[attn.key]"),
}


@pytest.mark.parametrize("cell", FUSED)
def test_parts_of_gpt2s_fused_projection_are_exported(cell: str, tmp_path: Path) -> None:
    model = tiny_families.backbone("gpt2").double()
    attach(model, build_slots(configured("task=piqa", "backbone=gpt2", *FUSED[cell])))
    perturb(model)
    export_peft(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_families.backbone("gpt2").double(), tmp_path)
    given = tiny_families.batch("gpt2")
    with torch.no_grad():
        ours, loaded = model(**given).logits, theirs(**given).logits
        plain = theirs.unload()(**given).logits
    assert close(loaded, ours)
    assert not close(plain, ours)
    with pytest.raises(UserError, match="one weight computes queries, keys and values there"):
        import_peft(tiny_families.backbone("gpt2"), tmp_path)


LORAS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "fc1", "fc2"],
        "rank_pattern": {"fc1": 2},
        "alpha_pattern": {"layers.1.fc2": 7},
    },
    "rslora": {"target_modules": ["v_proj", "fc1"], "use_rslora": True, "lora_dropout": 0.2},
    "some layers": {"target_modules": "model.decoder.layers.1.*(q_proj|fc2)"},
}


def peft_folder(folder: Path, family: str, **settings: Any) -> Any:
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "init_lora_weights": False, **settings})
    model = peft.get_peft_model(base(family), config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", ["bart", "mbart"])
@pytest.mark.parametrize("name", LORAS)
def test_a_folder_saved_by_peft_is_imported(name: str, family: str, tmp_path: Path) -> None:
    theirs, ours = peft_folder(tmp_path, family, **LORAS[name]), base(family)
    import_peft(ours, tmp_path)
    assert close(logits(ours, family), logits(theirs, family))


def test_a_classifier_comes_with_its_head(tmp_path: Path) -> None:
    settings = {"task_type": "SEQ_CLS", "target_modules": ["query", "intermediate.dense"]}
    theirs, ours = peft_folder(tmp_path, "roberta", **settings), base("roberta")
    import_peft(ours, tmp_path)
    assert close(logits(ours, "roberta"), logits(theirs, "roberta"))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("prefix",), "through the cache"),
        (("mam",), "through the cache"),
        (("mh_parallel",), "no multi-head parallel adapter"),
        (("prompt",), "position embeddings"),
        (("houlsby",), "no bottleneck adapter"),
        (("pfeiffer",), "no bottleneck adapter"),
        (("parallel_ffn",), "no bottleneck adapter"),
        (("bitfit",), "no slot is filled"),
        (("lora_attn", "attn.form.bias=true"), "no bias"),
        (("lora_attn", "attn.form.norm=in"), "no LayerNorm"),
        (("lora_attn", "attn.composition.norm=true"), "no LayerNorm"),
        (("lora_attn", "representation@attn=context"), "parallel to one weight"),
        (("lora_attn", "unfreeze=[*layernorm_embedding*]"), "individual backbone weights"),
    ],
)
def test_unsupported_deltas_are_not_exported(
    overrides: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        export_peft(trained("bart", *overrides), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "use_dora"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, "bias=lora_only"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias"),
        ({"target_modules": ["out_proj"]}, "LoRA at model.*out_proj cannot be"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "unexpected tensor"),
    ],
)
def test_unsupported_peft_settings_are_refused(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    peft_folder(tmp_path, "bart", **settings)
    with pytest.raises(UserError, match=reason):
        import_peft(base("bart"), tmp_path)


@pytest.mark.parametrize("method", ["bitfit", "lora_attn", "peft/lora"])
def test_a_model_with_deltas_refuses_an_import(method: str, tmp_path: Path) -> None:
    export_peft(trained("roberta", "lora_attn"), str(tmp_path))
    model = base("roberta")
    unipeft.attach(model, method)
    for _ in range(2):
        with pytest.raises(UserError, match="already has deltas: detach them first"):
            import_peft(model, str(tmp_path))
        unipeft.activate(model, None)
    unipeft.detach(model)
    import_peft(model, str(tmp_path))


HEADS = {
    "RobertaForTokenClassification": "TOKEN_CLS",
    "RobertaForQuestionAnswering": "QUESTION_ANS",
    "RobertaForMultipleChoice": None,
    "BartForSequenceClassification": "SEQ_CLS",
    "BartForQuestionAnswering": "QUESTION_ANS",
}


@pytest.mark.parametrize("method", ["lora_attn", "peft/dora"])
@pytest.mark.parametrize("kind", HEADS)
def test_models_with_other_heads_are_exported(kind: str, method: str, tmp_path: Path) -> None:
    cls = getattr(transformers, kind)
    sizes = tiny.ENCODER if kind.startswith("Roberta") else tiny.SEQ2SEQ
    labels = 2 if kind.endswith("QuestionAnswering") else 4
    model = cls(cls.config_class(**{**sizes, "num_labels": labels})).eval()
    plain = copy.deepcopy(model)
    unipeft.attach(model, method)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    export_peft(model, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["task_type"] == HEADS[kind]
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    given = make_probe(model, family_of(model.config))
    with torch.no_grad():
        torch.testing.assert_close(theirs(**given)[0], model(**given)[0], rtol=0, atol=1e-6)


def test_only_lora_is_imported(tmp_path: Path) -> None:
    export_peft(trained("bart", "lora_attn"), tmp_path)
    file = tmp_path / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "IA3"}))
    with pytest.raises(UserError, match="holds IA3"):
        import_peft(base("bart"), tmp_path)
    with pytest.raises(UserError, match="holds no adapter_config"):
        import_peft(base("bart"), tmp_path / "nowhere")
