"""Building trackers from a configuration."""

from __future__ import annotations

from pathlib import Path

from made_runs import planned

from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking.build import build_trackers, dashboard_name
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.tensorboard import TensorBoard
from unipeft_run.tracking.wandb import WandB

RUN = ("task=sst2", "method=mam")


def test_every_option_of_wandb_can_be_set(tmp_path: Path) -> None:
    options = ("name=mine", "job_type=sweep", "group=g", "entity=e", "tags=[a,b]", "mode=disabled")
    config = planned(*RUN, *(f"tracking.wandb.{option}" for option in options))
    _, _, tracker = build_trackers(config.config.tracking, RunFolder(tmp_path), Console())
    assert isinstance(tracker, WandB)
    expected = {"name": "mine", "job_type": "sweep", "group": "g", "entity": "e"}
    assert {key: tracker._names[key] for key in expected} == expected
    assert tracker._tags == ["a", "b"]


def test_the_default_name_is_task_method_and_run_id(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "sst2" / "mam" / "ab12cd34")
    _, _, tracker = build_trackers(planned(*RUN).config.tracking, folder, Console())
    assert isinstance(tracker, WandB)
    assert tracker._names["name"] == dashboard_name(folder.path) == "sst2-mam-ab12cd34"


def test_train_jsonl_comes_first_and_views_can_be_off(tmp_path: Path) -> None:
    config = planned(*RUN, "tracking.wandb=null", "tracking.tensorboard=boards")
    trackers = build_trackers(config.config.tracking, RunFolder(tmp_path), Console())
    assert [type(tracker) for tracker in trackers] == [Jsonl, Console, TensorBoard]
