"""Check the section `peft`: a method of the PEFT library, and the fields of its configuration.

Values are checked by the library itself, once the model is built. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.messages import Illegal, unknown_choice, unknown_key
from unipeft_run.config.schema import RunConfig, TunerConfig
from unipeft_run.config.tuner_fields import find_kinds, list_fields
from unipeft_run.errors import UserError

_DATA = "it needs a pass over the data before training, which is not made here"
_PROMPT = "it prepends vectors to the input or the keys; use method=prompt or method=prefix"
# methods of the library that cannot be placed in a layer of any model -> why
LEFT_OUT: Mapping[str, str] = {
    "PROMPT_TUNING": _PROMPT,
    "MULTITASK_PROMPT_TUNING": _PROMPT,
    "P_TUNING": _PROMPT,
    "PREFIX_TUNING": _PROMPT,
    "CPT": _PROMPT,
    "CARTRIDGE": _PROMPT,
    "ADAPTION_PROMPT": "it rewrites the attention of Llama and GPT-2 only; use method=prefix",
    "POLY": "it needs the task of every example as an input",
    "XLORA": "it mixes adapters that were trained before",
    "SHADOW": "it replaces the forward of the whole model",
    "ADAMSS": "it needs scikit-learn, and its own training schedule",
}
# fields that another key decides
MANAGED: Mapping[str, str] = {
    "peft_type": "give peft.type",
    "task_type": "the task decides it",
    "inference_mode": "the command decides it",
    "base_model_name_or_path": "give backbone.path",
    "revision": "give backbone.path",
    "auto_mapping": "the backbone decides it",
    "peft_version": "the installed version is recorded",
    "modules_to_save": "name the parameters in unfreeze=[...], or give head=trained",
    "layer_replication": "the layers of a backbone are fixed",
    "runtime_config": "it changes where the library computes",
    "alora_invocation_tokens": "it acts in the library's own forward, which is not used here",
    "kasa_config": "its extra loss is not added here",
    "monteclora_config": "its extra loss is not added here",
    **dict.fromkeys(("eva_config", "lora_ga_config", "corda_config"), _DATA),
}
# values of init_lora_weights that need the data
DATA_INITS = ("eva", "lora_ga", "corda")
# names in lists of modules that stand for modules of every family
LINEAR = (
    "attn.query",
    "attn.key",
    "attn.value",
    "attn.output",
    "ffn.up",
    "ffn.gate",
    "ffn.down",
)
EMBEDDING, NORMS = "embedding", "all-norms"
MODULES = (*LINEAR, EMBEDDING, NORMS)


def check_tuner(config: RunConfig) -> None:
    """Raise UserError for a method, a field or a module name that cannot be used."""
    tuner = config.peft
    if tuner is None:
        return
    if slots := config.slots():
        slot = next(iter(slots))
        raise Illegal(
            f"slot {slot} is filled, and so is peft; set {slot}=null, or use another method"
        )
    if config.compute.graphs:
        raise UserError("compute.graphs=true: CUDA graphs cannot record the PEFT library's modules")
    if config.parallel == "fsdp":
        raise UserError("parallel=fsdp: not with the PEFT library's modules; use parallel=ddp")
    check_tuner_fields(tuner, config.backbone.family)


def check_tuner_fields(tuner: TunerConfig, family: str) -> None:
    """Raise UserError for a method, a field or a module name that a family cannot use."""
    kinds = [kind for kind in find_kinds() if kind not in LEFT_OUT]
    if reason := LEFT_OUT.get(tuner.type):
        raise Illegal(f"peft.type={tuner.type}: {reason}")
    if tuner.type not in kinds:
        raise UserError(unknown_choice("peft.type", tuner.type, kinds))
    _check_fields(tuner)
    _check_modules(tuner, family)


def _check_fields(tuner: TunerConfig) -> None:
    known = list_fields(tuner.type)
    for name in tuner.config:
        if name in MANAGED:
            raise UserError(f"peft.config.{name} cannot be set: {MANAGED[name]}")
        if name not in known:
            free = [f"peft.config.{field}" for field in known if field not in MANAGED]
            raise UserError(unknown_key(f"peft.config.{name}", free))
    if (init := tuner.config.get("init_lora_weights")) in DATA_INITS:
        raise UserError(
            f"peft.config.init_lora_weights={init}: {_DATA}; "
            "use pissa, olora, orthogonal, gaussian or true"
        )


def _check_modules(tuner: TunerConfig, family: str) -> None:
    """Raise `Illegal` for one of our names of modules that the family does not have."""
    table = FAMILIES[family]
    for key, names in tuner.config.items():
        for name in names if isinstance(names, list | tuple | dict) else ():
            if name in LINEAR and table.taps(name) is None:
                raise Illegal(f"peft.config.{key}: {name} does not exist in a {family} backbone")
