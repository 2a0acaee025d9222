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


@pytest.mark.parametrize("ids", [{}, {"id": 1.5}])
def test_paragraphs_need_ids(ids: dict[str, Any], tmp_path: Path) -> None:
    def rows(count: int, first: int) -> list[dict[str, Any]]:
        plain = [{k: v for k, v in row.items() if k != "id"} for row in pair_rows(count, first)]
        return [{**row, **ids} for row in plain]

    folder = str(write(tmp_path, rows))
    with pytest.raises(UserError, match=r"task.paragraphs=.* has no column 'id' of ids"):
        pairs(path=folder).load()
    assert len(pairs(path=folder, paragraphs="none").load()["test"]) == 12
