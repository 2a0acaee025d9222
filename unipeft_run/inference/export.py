"""Export a finished run: merged for plain transformers, as a delta with a loader, or for PEFT."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config import RunConfig
from unipeft_run.config.contents import foreign_classes, hash_contents
from unipeft_run.errors import UserError
from unipeft_run.inference.loaded_run import LoadedRun, load_stored
from unipeft_run.inference.loader import write_loader
from unipeft_run.inference.model_card import write_card
from unipeft_run.inference.stored_run import BACKBONE, StoredRun, relocate
from unipeft_run.inference.transformers_folder import save_for_transformers
from unipeft_run.runs.folder import CONTENTS, DELTA_FILES, RunFolder, read_object

PLACES = ("path", "data")  # keys of a task that name local data
Kind = Literal["merged", "delta", "peft"]


def choose_kind(config: RunConfig, wanted: Literal["auto"] | Kind) -> Kind:
    """Return the kind of export: for `auto` merged if the run can be merged, else delta.

    A method of the PEFT library is exported for it by default, and merged by it. Loads no weights.
    Raises UserError, with the reason, if the run cannot be exported as `wanted`.
    """
    from unipeft_run.deltas.counting.counts import backbone_shapes, build_without_weights
    from unipeft_run.deltas.merge import find_merge_obstacle
    from unipeft_run.interop.peft import find_objection

    if config.peft is not None:
        return "peft" if wanted == "auto" else wanted
    if wanted == "delta":
        return wanted
    deltas = build_without_weights(config)
    if wanted == "peft":
        for delta in deltas:
            if reason := find_objection(delta):
                raise UserError(f"cannot export {delta.site.representation}: {reason}")
        return wanted
    table = FAMILIES[config.backbone.family]
    obstacle = find_merge_obstacle(deltas, table, backbone_shapes(config))
    if obstacle and wanted == "merged":
        raise UserError(f"cannot merge {obstacle}; --format delta exports it with a loader")
    return "delta" if obstacle else "merged"


def export_run(stored: StoredRun, out: Path, kind: Kind) -> None:
    """Write the export to `out`, which is replaced. Raises UserError if it cannot be written."""
    out = out.resolve()
    run = load_stored(stored, "cpu")
    writers: Mapping[Kind, Callable[[LoadedRun, Path], None]] = {
        "merged": _write_merged,
        "delta": _write_delta,
        "peft": _write_peft,
    }
    with _replacing(out) as folder:
        writers[kind](run, folder)
        write_card(run, folder, kind, out.name)


def _write_merged(run: LoadedRun, folder: Path) -> None:
    from unipeft_run.deltas.fold import fold

    save_for_transformers(run, fold(run.model), folder)


def _write_delta(run: LoadedRun, folder: Path) -> None:
    from unipeft_run.deltas.build import load_plain

    tensors, recipe = DELTA_FILES
    shutil.copyfile(run.folder / tensors, folder / tensors)
    save_for_transformers(run, load_plain(run.config, run.backbone), folder / BACKBONE)
    config = _portable(run.config)
    target = RunFolder(folder)
    backbone = config.backbone.model_dump(mode="json")
    stored = read_object(run.folder / recipe)
    described = stored.get("backbone")
    described = described if isinstance(described, dict) else {}
    target.write_json(recipe, {**stored, "backbone": {**described, **backbone}})
    target.write_text("config.yaml", yaml.safe_dump(config.plain(), sort_keys=False))
    target.write_json(CONTENTS, hash_contents(relocate(config, folder), ()))
    foreign = foreign_classes(config)
    target.write_text("load.py", write_loader(run.task, f", allow={foreign}" if foreign else ""))


def _write_peft(run: LoadedRun, folder: Path) -> None:
    from unipeft_run.interop.peft import export_peft

    backbone = run.config.backbone
    export_peft(run.model, folder, backbone.path or backbone.hub)


def _portable(config: RunConfig) -> RunConfig:
    """Return the configuration without paths of this machine; the backbone is in the folder.

    A run on local data then has no data, rather than the data set of that task on the hub.
    """
    places = [name for name in PLACES if name in type(config.task).model_fields]
    is_local = any(getattr(config.task, name) for name in places)
    local = dict.fromkeys((*places, "hub", "mini")) if is_local else {}
    sections: dict[str, Any] = {
        "task": config.task.model_copy(update=local),
        "backbone": config.backbone.model_copy(update={"path": None, "weights": "pretrained"}),
        "tracking": config.tracking.model_copy(update={"tensorboard": None, "wandb": None}),
        "output": "outputs",
    }
    return config.model_copy(update=sections)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `out` that replaces it once it is complete."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror}") from None
    try:
        staged.chmod(0o755)
        yield staged
        _swap(staged, out)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _swap(staged: Path, out: Path) -> None:
    """Rename `staged` to `out`; an earlier folder there is removed only after that."""
    if not out.exists():
        staged.rename(out)
        return
    earlier = staged.with_name(f"{staged.name}-earlier")
    out.rename(earlier)
    try:
        staged.rename(out)
    except BaseException:
        earlier.rename(out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
