"""Load the model of a finished run from its stored delta. Its data is not needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import set_seed

from unipeft_run import config as configuration
from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.load import load_backbone
from unipeft_run.backbones.locate import locate
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.counting.counts import labels_of
from unipeft_run.deltas.delta_file import load_delta
from unipeft_run.deltas.slots import built, folded
from unipeft_run.errors import UserError


def load_run(folder: Path, allow: Sequence[str] = ()) -> nn.Module:
    """Return the backbone of a finished run with its delta, in eval mode.

    A frozen classifier is initialised again from the run's seed. `allow`: prefixes of classes
    outside this package that the run may name; no other code is executed. Raises UserError.
    """
    cfg = configuration.load(folder, allow)
    if not (folder / "delta.safetensors").is_file():
        raise UserError(f"{folder} holds no finished run: there is no delta.safetensors in it")
    backbone = cfg["backbone"]
    source = locate(**{key: backbone[key] for key in ("name", "hub", "path")})
    set_seed(cfg["seed"])
    model: Any = load_backbone(
        source,
        family=backbone["family"],
        weights=backbone["weights"],
        num_labels=labels_of(cfg["task"]),
        config=backbone["config"],
    )
    head = family_of(model.config).head if cfg["head"] == "trained" else ()
    slots = {name: built(slot) for name, slot in folded(cfg).items()}
    attach(model, slots, [*cfg["unfreeze"], *head])
    load_delta(model, folder)
    return model.eval()  # type: ignore[no-any-return]
