"""Images are read, decoded, resized, cropped and cached as documented."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny_vision import (
    COLOURS,
    NORMAL,
    SPLITS,
    class_rows,
    classes,
    encode,
    pair_rows,
    pairs,
    picture,
    write,
)

from unipeft_run.data.fingerprint import observe
from unipeft_run.data.images import encoding
from unipeft_run.data.images.encoding import read_pixels
from unipeft_run.data.images.frames import choose_frames
from unipeft_run.data.images.transforms import (
    centre_crop,
    decode_image,
    random_resized_crop,
    resize_shorter,
    to_pixels,
)
from unipeft_run.data.tasks import hub
from unipeft_run.data.tasks.cifar100 import CIFAR100, CLASSES
from unipeft_run.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


# ---- transforms


def test_the_shorter_side_is_resized_and_the_longer_one_rounded_down() -> None:
    image = Image.new("RGB", (50, 33))
    assert resize_shorter(image, 16).size == (24, 16)
    assert resize_shorter(image.rotate(90, expand=True), 16).size == (16, 24)
    assert resize_shorter(image, 33) is image


def test_resizing_is_bicubic() -> None:
    image = decode_image(picture((120, 60, 200), 1, (40, 30)), "here")
    expected = image.resize((21, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(to_pixels(resize_shorter(image, 16)), to_pixels(expected))


def test_the_centre_is_cut_out() -> None:
    pixels = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    cut = to_pixels(centre_crop(Image.fromarray(pixels), 5))
    assert np.array_equal(cut, pixels[1:6, 2:7])


def test_a_random_crop_depends_on_the_generator_alone() -> None:
    image = decode_image(picture((10, 200, 90), 2, (60, 40)), "here")

    def crop(seed: int) -> bytes:
        cut = random_resized_crop(image, 16, (0.1, 1.0), np.random.default_rng(seed))
        assert cut.size == (16, 16)
        return to_pixels(cut).tobytes()

    assert crop(3) == crop(3) != crop(4)


def test_a_random_crop_of_all_of_a_narrow_image_falls_back_to_its_centre() -> None:
    image = Image.new("RGB", (300, 10))
    assert random_resized_crop(image, 8, (1.0, 1.0), np.random.default_rng(0)).size == (8, 8)


def test_transparent_pixels_are_white() -> None:
    content = encode(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert (to_pixels(decode_image(content, "here")) == 255).all()


def test_an_image_is_turned_upright() -> None:
    pixels = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", exif=exif)
    upright = to_pixels(decode_image(content.getvalue(), "here"))
    assert np.array_equal(upright, np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is not an image in one of the formats PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "x is not an image"),
        (picture((0, 0, 0), 0)[:60], "x cannot be decoded: "),
    ],
)
def test_a_damaged_image_is_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode_image(content, "x")


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="x cannot be decoded: Image size"):
        decode_image(picture((0, 0, 0), 0), "x")


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [(3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (30, 1, [0]), (7, 3, [0, 3, 6])],
)
def test_frames_are_evenly_spread(count: int, most: int, chosen: list[int]) -> None:
    assert choose_frames(count, most) == chosen
    if most > 1:
        assert chosen == np.linspace(0, count - 1, min(most, count), dtype=int).tolist()


# ---- reading


def write_table(folder: Path, table: pa.Table) -> Path:
    folder.mkdir()
    for split in SPLITS:
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


def as_hub_file(folder: Path, label: str = "fine_label") -> Path:
    """Write a Parquet file as `datasets` writes CIFAR-100."""
    rows = [{"img": {"bytes": r["image"], "path": None}, label: r["label"]} for r in ROWS]
    names = ["green", "blue", "red"]  # in another order than the task's
    kinds = {"img": ImageFeature(), label: ClassLabel(names=names), "coarse": Value("int8")}
    features = Features(kinds)
    columns = {name: [row.get(name, 0) for row in rows] for name in features}
    folder.mkdir()
    for split in SPLITS:
        Dataset.from_dict(columns, features).to_parquet(folder / f"{split}.parquet")
    return folder


def as_names(folder: Path) -> Path:
    """Write JSON Lines with the names of image files."""
    (folder / "files").mkdir(parents=True)
    for i, row in enumerate(ROWS):
        (folder / "files" / f"{i}.png").write_bytes(row["image"])
    lines = [
        json.dumps({"image": f"files/{i}.png", "label": r["label"]}) for i, r in enumerate(ROWS)
    ]
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


ROWS = class_rows(4, 0)
WRITERS: dict[str, Callable[[Path], Path]] = {
    "bytes": lambda folder: write_table(folder, pa.Table.from_pylist(ROWS)),
    "names": as_names,
    "hub": as_hub_file,
    "hub, label": lambda folder: as_hub_file(folder, "label"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    task = classes(path=WRITERS[kind](tmp_path / kind))
    splits = task.load()
    encoded = task.encode(splits, None)
    expected = [to_pixels(decode_image(row["image"], "")) for row in ROWS]
    assert all(
        np.array_equal(read_pixels(row)[0], pixels)
        for row, pixels in zip(encoded["test"], expected, strict=True)
    )
    labels = [1, 2, 0, 1] if "hub" in kind else [0, 1, 2, 0]
    assert encoded["test"]["labels"] == task.references(splits["test"]) == labels


def test_lists_of_images_are_videos(tmp_path: Path) -> None:
    import tiny_text

    task = pairs(path=write(tmp_path / "pairs", pair_rows, 5), frames=2)
    encoded = task.encode(task.load(["test"]), tiny_text.bart_tokenizer())["test"]
    assert [row["shape"] for row in encoded] == [[n, 16, 16] for n in (1, 2, 2, 1, 2)]


def test_texts_of_one_video_are_joined(tmp_path: Path) -> None:
    rows = pair_rows(4, 0)
    for row, video in zip(rows, ("a", "b", "a", "b"), strict=True):
        row["id"] = video
    folder = write_table(tmp_path / "data", pa.Table.from_pylist(rows))
    joined = pairs(path=folder).load(["train"])["train"]
    assert joined["text"] == [f"{rows[i]['text']} {rows[i + 2]['text']}" for i in (0, 1)]
    assert joined["id"] == ["a", "b"]
    several = pairs(path=folder, paragraphs="none")
    assert several.references(several.load(["test"])["test"]) == [0, 1, 0, 1]
    mixed = pairs(path=folder, paragraphs="evaluation").load()
    assert [len(mixed[split]) for split in SPLITS] == [4, 2, 2]
    assert len(pairs(path=folder, limit={"train": 1}).load(["train"])["train"]) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"picture": [b"x"], "label": [0]}, "has no column 'img'"),
        ({"image": ["a.png"], "label": [0]}, "holds string, not the bytes of image files"),
        ({"image": [None, b"x"], "label": [0, 0]}, "has no value in row 1"),
        ({"image": [[b"x"], []], "label": [0, 0]}, "is an empty list in row 2"),
        ({"image": [b"x"], "label": [3]}, "out of range"),
    ],
)
def test_a_wrong_table_is_one_sentence(
    table: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        classes(path=write_table(tmp_path / "data", pa.table(table))).load()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    folder = as_names(tmp_path / "data")
    (folder / "files" / "2.png").write_bytes(b"not an image")
    task = classes(path=folder)
    with pytest.raises(UserError, match=r"files/2\.png is not an image"):
        task.encode(task.load(), None)
    (folder / "files" / "1.png").unlink()
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: there is no image file"):
        task.load()


def test_the_fingerprint_changes_with_an_image(tmp_path: Path) -> None:
    task = classes(path=as_names(tmp_path / "data"))
    files = tmp_path / "data" / "files"
    with observe() as hashed:
        before = task.fingerprints()
    assert task.fingerprints() == before
    assert {files / f"{i}.png" for i in range(4)} <= set(hashed)
    (files / "0.png").rename(files / "old.png")
    (files / "3.png").rename(files / "0.png")
    (files / "old.png").rename(files / "3.png")
    assert task.fingerprints() != before


def test_pixels_are_cached_and_large_images_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": picture((9, 9, 9), 1, (40, 64)), "label": 0}]
    folder = write_table(tmp_path / "data", pa.Table.from_pylist(rows))
    task = classes(path=folder, resize=20)
    first = task.encode(task.load(["test"]), None)["test"][0]
    assert first["shape"] == [1, 32, 20]
    monkeypatch.setattr(encoding, "load_image", lambda *_: pytest.fail("decoded again"))
    assert task.encode(task.load(["test"]), None)["test"][0] == first


def test_cifar_names_its_classes() -> None:
    assert len(set(CLASSES)) == 100 and CLASSES[0] == "apple" and CLASSES[-1] == "worm"
    assert CIFAR100(name="cifar100", image_size=16, resize=16, **NORMAL).class_names() == CLASSES


def test_the_baseline_knows_the_colours(tmp_path: Path) -> None:
    task = classes(path=write(tmp_path / "classes"))
    splits = task.load()
    assert task.score(task.baseline(splits), task.references(splits["test"])).metrics == {
        "accuracy": 100.0
    }
    video = pairs(path=write(tmp_path / "pairs", pair_rows))
    splits = video.load()
    found = video.score(video.baseline(splits), video.references(splits["test"])).metrics
    assert found["t2v_r5"] > 5 / 12 * 100


def test_the_last_training_images_of_the_hub_are_the_validation_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(path: str, name: str | None, revision: str | None) -> DatasetDict:
        assert (path, name, revision) == ("uoft-cs/cifar100", None, "abc")
        rows = {"img": [{"bytes": r["image"], "path": None} for r in ROWS], "fine_label": [2] * 4}
        features = Features(img=ImageFeature(), fine_label=ClassLabel(names=list(COLOURS)))
        return DatasetDict({n: Dataset.from_dict(rows, features) for n in ("train", "test")})

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    monkeypatch.setattr(CIFAR100, "held_out", 1)
    task = classes(hub={"path": "uoft-cs/cifar100", "name": None, "revision": "abc"})
    splits = task.load()
    assert [len(splits[split]) for split in SPLITS] == [3, 1, 4]
    assert splits["validation"]["images"][0] == splits["test"]["images"][3]
