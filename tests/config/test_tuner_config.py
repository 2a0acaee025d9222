"""The section `peft`: methods of the PEFT library as configuration."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tiny_config import configured

from unipeft_run.config import compose, plan, resolve, run_id, tuner_fields
from unipeft_run.config.messages import options
from unipeft_run.config.tuner_fields import find_kinds, list_fields
from unipeft_run.config.tuners import LEFT_OUT, MANAGED
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir

pytest.importorskip("peft")

METHODS = [name for name in options("method") if name.startswith("peft/")]
BASE = ("task=sst2", "method=peft/dora")
TOKENS = "peft.config.token_indices=[5]"


@pytest.mark.slow
def test_every_method_of_the_library_is_a_method_or_left_out_with_a_reason() -> None:
    kinds = {configured("task=sst2", f"method={m}", *_needed(m)).peft.type for m in METHODS}
    assert kinds | set(LEFT_OUT) == set(find_kinds())
    assert not kinds & set(LEFT_OUT)


def _needed(method: str) -> tuple[str, ...]:
    return (TOKENS,) if method == "peft/trainable_tokens" else ()


@pytest.mark.parametrize("method", METHODS)
def test_a_file_names_itself_and_starts_with_a_sentence_and_an_equation(method: str) -> None:
    text = (conf_dir() / "method" / f"{method}.yaml").read_text(encoding="utf-8")
    package, sentence, equation, *_ = text.splitlines()
    assert package == "# @package _global_" and re.match(r"# \w|# \(IA\)", sentence)
    assert re.match(r"#     \w.* <- ", equation)
    assert f"\nmethod: {method}\n" in text


def test_the_fields_read_from_the_source_are_those_of_the_library() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as classes

    for kind, cls in classes.items():
        assert set(list_fields(kind.value)) == set(cls.__dataclass_fields__), kind
    assert all(name in list_fields("LORA") for name in MANAGED)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("peft.config.rr=3",), r"no key peft\.config\.rr; did you mean peft\.config\.r\?"),
        (("+peft.config.lora_droput=0.1",), r"did you mean peft\.config\.lora_dropout\?"),
        (("peft.type=LORAX",), r"peft\.type=LORAX is unknown \(did you mean LORA\?\)"),
        (("peft.type=PREFIX_TUNING",), r"peft\.type=PREFIX_TUNING: .*use method=prompt"),
        (("peft.config.modules_to_save=[a]",), r"modules_to_save cannot be set: .*unfreeze"),
        (("peft.config.alora_invocation_tokens=[5]",), r"own forward, which is not used here"),
        (("+peft.config.kasa_config={}",), r"kasa_config cannot be set: its extra loss"),
        (("+peft.config.monteclora_config={}",), r"monteclora_config cannot be set: its extra"),
        (("peft.config.init_lora_weights=eva",), r"=eva: it needs a pass over the data"),
        (("peft.config.init_lora_weights=lora_ga",), r"=lora_ga: .*; use pissa, olora"),
        (("+peft.config.eva_config={}",), r"eva_config cannot be set: it needs a pass"),
        (("+peft.config.rank_pattern={ffn.gate: 2}",), r"ffn\.gate does not exist in a roberta"),
        (("parallel=fsdp",), r"parallel=fsdp: .*use parallel=ddp"),
        (("compute.graphs=true",), r"compute\.graphs=true: CUDA graphs cannot record"),
        (("peft.config.target_modules=[ffn.gate]",), r"ffn\.gate does not exist in a roberta"),
        (("method=mam", "+peft={type: LORA}"), r"slot attn is filled, and so is peft"),
        (("method=peft/dorra",), r"method=peft/dorra is unknown \(did you mean peft/dora\?\)"),
        (("method=mamm",), r"did you mean mam\?\); choose from .*, peft/\.\.\.$"),
        (("method=peft/trainable_tokens",), r"token_indices has no value; give one"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], message: str) -> None:
    given = [
        word for word in BASE if not any(w.startswith("method=") for w in words) or word != BASE[1]
    ]
    with pytest.raises(UserError, match=message) as error:
        resolve(compose([*given, *words]))
    assert len(str(error.value).splitlines()) == 1


def test_a_field_that_the_file_does_not_set_needs_no_plus() -> None:
    config = configured(*BASE, "peft.config.lora_dropout=0.1", "peft.config.r=4").peft
    assert config is not None and config.config["lora_dropout"] == 0.1 and config.config["r"] == 4


def test_the_library_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner_fields, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'unipeft\[peft\]'"):
        resolve(compose(BASE))


def test_the_run_folder_has_one_level_per_method() -> None:
    planned = plan(compose([*BASE, "output=out"]))
    assert planned.folder.parts[-3:-1] == ("sst2", "peft-dora")
    assert planned.config.method == "peft/dora"


def test_the_section_decides_the_run_id_and_null_does_not() -> None:
    assert run_id(configured(*BASE)) != run_id(configured(*BASE, "peft.config.r=4"))
    mam = configured("task=sst2", "method=mam")
    assert mam.peft is None and run_id(mam) == run_id(mam.model_copy(update={"peft": None}))


def test_a_configuration_imports_no_torch() -> None:
    code = (
        "import sys; from unipeft_run.config import compose, resolve; "
        f"resolve(compose({list(BASE)})); "
        "sys.exit(bool({'torch', 'transformers', 'peft'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
