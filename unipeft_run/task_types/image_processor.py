"""transformers' `preprocessor_config.json`: compare that of a backbone, write that of a task."""

from __future__ import annotations

import json
from pathlib import Path

from unipeft_run.backbones.files import convert_errors, find_file, read_object
from unipeft_run.data.tasks.images import ImageTask
from unipeft_run.errors import UserError

PROCESSOR = "preprocessor_config.json"
NORMALISATION = ("image_mean", "image_std")


def compare_normalisation(task: ImageTask, source: str) -> str | None:
    """Return a warning if the backbone at `source` was trained with another normalisation."""
    try:
        with convert_errors(source):
            file = find_file(source, PROCESSOR)
            content = read_object(file) if file else {}
    except UserError as problem:
        return str(problem)
    given = {key: content[key] for key in NORMALISATION if key in content}
    if all(list(getattr(task, key)) == value for key, value in given.items()):
        return None
    settings = " ".join(f"task.{key}={json.dumps(value)}" for key, value in given.items())
    return (
        f"the backbone's {PROCESSOR} normalises images differently from the task; "
        f"to use its values: {settings.replace(', ', ',')}"
    )


def save_image_processor(task: ImageTask, folder: Path) -> None:
    """Write the settings of transformers' image processor that prepares images as `task` does."""
    size, mean, std = task.image_size, list(task.image_mean), list(task.image_std)
    settings = {
        "image_processor_type": "CLIPImageProcessor",  # the one that cuts out the centre
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": task.resize},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    content = json.dumps(settings, indent=2) + "\n"
    (folder / PROCESSOR).write_text(content, encoding="utf-8")
