"""The reader: run states from the folder alone, each real folder once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from made_runs import make_run, make_sst2_run
from tiny_config import resolved

from unipeft_run.errors import UserError
from unipeft_run.runs import search
from unipeft_run.runs.finished import finished_runs
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.runs.reader import find_runs, read_run

RECORDED = Path(__file__).parents[1] / "recorded_runs" / "runs"


def folders(*tops: Path) -> list[str]:
    return [run.folder.name for run in find_runs(tops)]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "status.json").write_text('{"state": "done", "step": 3}')
    return path


# ---- one run


def test_states_steps_and_metrics(tmp_path: Path) -> None:
    paths = {state: make_sst2_run(tmp_path, state, f"seed={n}") for n, state in enumerate(STATES)}
    runs = {state: read_run(path) for state, path in paths.items()}
    assert [run.state for run in runs.values()] == list(STATES)
    assert runs["done"].metric == ("test/accuracy", 90.25)
    assert runs["failed"].metric == ("validation/accuracy", 81.5)
    assert (runs["failed"].step, runs["failed"].total) == (3, 10)
    assert runs["diverged"].error == "the loss is nan at step 4"
    assert runs["stale"].label == f"sst2/mam/{paths['stale'].name}"


STATES = ("done", "failed", "diverged", "interrupted", "stale")


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    folder = make_sst2_run(tmp_path, "stale")
    with RunLock(folder):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == "stale"


def test_a_run_is_running_before_its_first_file(tmp_path: Path) -> None:
    folder = tmp_path / "sst2" / "mam" / "ab12cd34"
    with RunLock(folder):
        run = read_run(folder)
    assert (run.state, run.error, run.reason_left_out) == ("running", "", "running at step 0")
    assert read_run(folder).state == "damaged"


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted"])
def test_a_resumed_run_is_running_while_it_prepares(tmp_path: Path, state: str) -> None:
    """Its last attempt's state and error are still recorded."""
    folder = make_sst2_run(tmp_path, state)
    with RunLock(folder):
        assert (read_run(folder).state, read_run(folder).error) == ("running", "")
    assert read_run(folder).state == state


@pytest.mark.parametrize("state", ["stale", "interrupted", "failed"])
def test_a_run_that_was_stopped_after_its_metrics_is_done(tmp_path: Path, state: str) -> None:
    folder = make_sst2_run(tmp_path, state)
    RunFolder(folder).write_json("metrics.json", {"primary": "test/loss", "test/loss": 0.5})
    assert (read_run(folder).state, read_run(folder).metric) == ("done", ("test/loss", 0.5))
    (folder / "metrics.json").write_text("{")
    assert read_run(folder).state == state
    assert read_run(folder).problems[0].startswith("metrics.json is damaged: ")


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "status.json says done, but there are no metrics; the same"), ("{", "metrics.json is")],
)
def test_a_done_run_that_lost_its_metrics_is_damaged(
    tmp_path: Path, content: str | None, error: str
) -> None:
    file = make_sst2_run(tmp_path, "done") / "metrics.json"
    file.unlink()
    if content:
        file.write_text(content)
    run = read_run(file.parent)
    assert run.state == "damaged" and run.error.startswith(error)
    assert error in run.reason_left_out


def test_the_cell_ignores_the_seed(tmp_path: Path) -> None:
    overrides = (("seed=1",), ("seed=2",), ("seed=1", "optim.lr=0.1"))
    first, second, other = (read_run(make_sst2_run(tmp_path, "done", *w)).cell for w in overrides)
    assert first == second != other


def test_the_cell_ignores_where_hashed_data_and_weights_are(tmp_path: Path) -> None:
    contents = {"data.train": "a" * 64, "data.test": "b" * 64, "backbone.path": "c" * 64}
    cells = []
    for number, place in enumerate(("here", "there", "elsewhere")):
        paths = (f"task.path=/{place}", f"backbone.path=/{place}")
        config = resolved("task=sst2", "method=mam", "scale=mini", f"seed={number}", *paths)
        folder = make_folder(tmp_path / place)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        other = {"data.test": "d" * 64} if place == "elsewhere" else {}
        (folder / "contents.json").write_text(json.dumps({**contents, **other}))
        cells.append(read_run(folder).cell)
        (folder / "contents.json").unlink()
        cells.append(read_run(folder).cell)
    assert cells[0] == cells[2] != cells[4]
    assert len({cells[1], cells[3], cells[5]}) == 3, "without hashes the paths count"


def test_recorded_runs_stay_readable() -> None:
    """These folders were written by earlier versions."""
    runs = list(find_runs([RECORDED]))
    assert [run.label for run in runs] == sorted(run.label for run in runs) and len(runs) == 2
    for run in runs:
        assert (run.state, run.problems, run.reason_left_out) == ("done", (), "")
        assert run.metric is not None and run.metric[0] == run.metrics["primary"]
        steps = [record["step"] for record in run.train_records()]
        assert steps == sorted(steps) and steps[-1] == run.step
        assert all({"id", "prediction"} <= row.keys() for row in run.predictions("test"))
        assert len(run.cell) == 8


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("failed", "failed at step 3"),
        ("diverged", "diverged at step 3: the loss is nan at step 4"),
        ("stale", "stale (its process is gone) at step 3"),
        ("interrupted", "interrupted at step 3"),
        ("done", "damaged: metrics.json lacks task, method, scale, backbone, run_id, seed, "),
    ],
)
def test_the_reason_for_leaving_a_run_out_of_tables(
    tmp_path: Path, state: str, reason: str
) -> None:
    assert read_run(make_sst2_run(tmp_path, state)).reason_left_out.startswith(reason)


# ---- finding them


def test_runs_below_a_folder_are_found_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b/x/2", "b/x/1", "a", ".hidden/c", "b/x/1/wandb/deep"):
        make_folder(tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert folders(tmp_path) == ["a", "1", "2"]
    assert folders(tmp_path / "b", tmp_path, tmp_path / "a") == ["1", "2", "a"]
    assert folders(tmp_path / "b" / "x" / "1") == ["1"]


def test_links_to_runs_and_to_outputs_are_followed(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere" / "sst2" / "mam" / "ab12cd34")
    run = make_folder(tmp_path / "single")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a-link").symlink_to(run)
    (tmp_path / "outputs" / "b-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "outputs" / "c-link").symlink_to(run)  # the same one again
    (tmp_path / "top").symlink_to(tmp_path / "outputs")
    assert folders(tmp_path / "outputs") == folders(tmp_path / "top") == ["a-link", "ab12cd34"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make_folder(tmp_path / "outputs" / "x" / "1")
    for name, target in (("self", "self"), ("up", ".."), ("root", "/"), ("gone", "nowhere")):
        (tmp_path / "outputs" / "x" / name).symlink_to(target)
    (tmp_path / "outputs" / "y").symlink_to(tmp_path / "outputs" / "x")
    assert folders(tmp_path / "outputs") == ["1"]


def test_depth_and_number_of_folders_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_FOLDERS", 20)
    deep = tmp_path / "deep" / "/".join("d" * 30)
    make_folder(deep)
    assert folders(tmp_path / "deep") == []
    for number in range(40):
        (tmp_path / "wide" / f"{number:02d}").mkdir(parents=True)
    make_folder(tmp_path / "wide" / "zz")
    (run,) = find_runs([tmp_path / "wide"])
    assert run.state == "damaged" and "more than 20 folders" in run.error


def test_a_folder_that_cannot_be_listed_is_one_damaged_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "b")
    (tmp_path / "a").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("unipeft_run.runs.search.os.scandir", refusing)
    closed, other = find_runs([tmp_path])
    assert (closed.state, closed.error) == ("damaged", "cannot be listed: Permission denied")
    assert other.state == "damaged" and other.error == "there is no config.yaml"


def test_a_folder_whose_name_is_not_unicode(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/out\xff\x1b[2J"))
    try:
        make_folder(folder / "sst2" / "mam" / "ab12cd34")
    except OSError:
        pytest.skip("the disk takes no such names")
    (run,) = find_runs([folder.parent])
    assert run.state == "damaged" and run.label == "sst2/mam/ab12cd34"
    assert read_run(folder).label.endswith(r"out\xff\x1b[2J")


def test_runs_that_differ_in_their_seed_are_told_apart(tmp_path: Path) -> None:
    (source,) = RECORDED.glob("sst2/*/*")
    config = (source / "config.yaml").read_text().split("seed: ")
    for number in range(30):
        folder = make_folder(tmp_path / f"{number:04d}")
        (folder / "config.yaml").write_text(f"{config[0]}seed: {number}{config[1][2:]}")
    runs = list(find_runs([tmp_path]))
    assert [run.config["seed"] for run in runs] == list(range(30))
    assert all(run.config["task"]["name"] == "sst2" for run in runs)


# ---- finished runs


def test_finished_runs_and_the_runs_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (make_run("task=sst2", "method=mam", f"seed={n}") for n in (1, 2))
    failed = make_sst2_run(tmp_path / "outputs", "failed", "seed=3")
    (tmp_path / "copy").mkdir()
    os.rename(second, tmp_path / "copy" / second.name)
    os.system(f"cp -r {first} {tmp_path}/copy/twin")
    finished, left_out = finished_runs([tmp_path / "outputs", tmp_path / "copy"])
    assert {run.folder.name for run in finished} == {first.name, second.name}
    assert left_out == [
        f"outputs/sst2/mam/{failed.name}: failed at step 3",
        f"copy/twin: the same run as {tmp_path / first}",
    ]


def test_only_the_latest_run_of_a_seed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions may compute different ids for one configuration."""
    monkeypatch.chdir(tmp_path)
    folders = [make_run("task=sst2", "method=mam", f"seed={n}") for n in (1, 2)]
    for run_id, beat in (("0ld0ld00", "2023-01-01T00:00:00+00:00"), ("00dd00dd", "2021-01-01")):
        copy = shutil.copytree(folders[0], folders[0].with_name(run_id))
        metrics = json.loads((copy / "metrics.json").read_text())
        (copy / "metrics.json").write_text(json.dumps({**metrics, "run_id": run_id}))
        (copy / "status.json").write_text(json.dumps({"state": "done", "heartbeat": beat}))
    finished, left_out = finished_runs([Path("outputs")])
    assert {run.folder.name for run in finished} == {"0ld0ld00", folders[1].name}
    reason = "repeated by outputs/sst2/mam/0ld0ld00, with the same configuration and seed"
    assert sorted(left_out) == sorted(
        f"outputs/sst2/mam/{name}: {reason}" for name in ("00dd00dd", folders[0].name)
    )


def test_a_folder_named_twice_has_each_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run("task=sst2", "method=mam")
    finished, left_out = finished_runs([Path("outputs"), Path("outputs"), run])
    assert (len(finished), left_out) == (1, [])


def test_no_folder_and_no_runs_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        finished_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"holds no run: no config\.yaml"):
        finished_runs([tmp_path])
