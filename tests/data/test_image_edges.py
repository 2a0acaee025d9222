"""Images and tables of images that are unusual, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_vision import class_rows, classes, encode, pair_rows, pairs, write

from unipeft_run.data.images.transforms import decode_image
from unipeft_run.errors import UserError
from unipeft_run.task_types.image_processor import compare_normalisation, save_image_processor


def test_sixteen_bits_keep_their_greys() -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    image = decode_image(encode(Image.fromarray(values)), "image")
    assert np.asarray(image)[..., 0].mean() == pytest.approx(127.5, abs=1)


def test_a_class_belongs_to_one_image(tmp_path: Path) -> None:
    def rows(count: int, first: int) -> list[dict[str, Any]]:
        return [{**row, "image": [row["image"]] * 2} for row in class_rows(count, first)]

    task = classes(path=str(write(tmp_path, rows)))
    with pytest.raises(UserError, match=r"classifies single images, but column .* holds 2 images"):
        task.encode(task.load(), None)


@pytest.mark.parametrize("differs", [True, False])
def test_another_normalisation_of_the_backbone_is_named(differs: bool, tmp_path: Path) -> None:
    assert compare_normalisation(classes(), str(tmp_path)) is None
    save_image_processor(classes(image_std=(0.5, 0.25, 1)) if differs else classes(), tmp_path)
    warning = compare_normalisation(classes(), str(tmp_path))
    ending = "task.image_mean=[0.5,0.5,0.5] task.image_std=[0.5,0.25,1]"
    assert warning.endswith(ending) if warning else not differs


@pytest.mark.parametrize("ids", [{}, {"id": 1.5}])
def test_paragraphs_need_ids(ids: dict[str, Any], tmp_path: Path) -> None:
    def rows(count: int, first: int) -> list[dict[str, Any]]:
        plain = [{k: v for k, v in row.items() if k != "id"} for row in pair_rows(count, first)]
        return [{**row, **ids} for row in plain]

    folder = str(write(tmp_path, rows))
    with pytest.raises(UserError, match=r"task.paragraphs=.* has no column 'id' of ids"):
        pairs(path=folder).load()
    plain = pairs(path=folder, paragraphs="none")
    assert len(plain.load()["test"]) == 12


def test_without_ids_the_same_images_are_one_video(tmp_path: Path) -> None:
    def rows(count: int, first: int) -> list[dict[str, Any]]:
        made = [{k: v for k, v in row.items() if k != "id"} for row in pair_rows(count, first)]
        return [*made, {**made[1], "text": "another text"}]

    task = pairs(path=str(write(tmp_path, rows, 3)), paragraphs="none")
    test = task.load()["test"]
    assert task.references(test) == [0, 1, 2, 1]
    assert task.name_references([0, 1, 2, 1], test) == ["0", "1", "2", "1"]
    made = [{k: v for k, v in row.items() if k != "id"} for row in pair_rows(2, 0)]
    captioned = write(tmp_path / "captioned", lambda *_: [made[0], made[0], made[1], made[1]])
    task = pairs(path=str(captioned), paragraphs="none")
    test = task.load()["test"]
    assert task.name_references(task.references(test), test) == ["0", "0", "2", "2"]
