"""Weights & Biases: one W&B run per training run, written from a background thread.

Training is neither stopped nor delayed by a missing or broken package, a missing key, or a slow or
failing server. train.jsonl has every record, so nothing is lost when this tracker turns itself off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, cast

from unipeft_run.tracking import Record, Tracker, wandb_server
from unipeft_run.tracking.content import find_axes, find_tables, make_tags
from unipeft_run.tracking.jsonl import read_train_records
from unipeft_run.tracking.wandb_service import open_run, stop_service

if TYPE_CHECKING:
    from wandb import Run

Mode = Literal["auto", "online", "offline", "disabled"]
Job = Callable[["Run"], object]

# Seconds allowed to open the run on the server, to upload the rest at the end, and for all of
# `finish`
CONNECTING, UPLOADING, FINISHING = 15, 20, 30

log = logging.getLogger(__name__)


class MissingRows(Exception):
    """The server has fewer rows of a run than train.jsonl."""


class WandB(Tracker):
    """Sends every record to the W&B run `run_id`; its local files are in `folder`/wandb.

    `mode`: auto follows $WANDB_MODE, and otherwise is online if there is a key ($WANDB_API_KEY or
    netrc), offline if there is no key or the server cannot be reached. `group` defaults to the
    task and its scale, `job_type` to the method, `name` to `run_id`; `tags` are added to those of
    the four axes, and a single word is one tag. `problem`: why the run is missing or incomplete on
    the server; None if it is complete.

    `say` prints the line that says where the run is recorded.

    A history row is one record. W&B's own step is the record's index in train.jsonl, and our step
    is the column `step`. Rows that the server already has are not sent again, so resuming or
    replaying a run never duplicates them.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        *,
        mode: Mode = "auto",
        project: str = "unipeft",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: str | Sequence[str] | None = (),
        name: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._mode = _resolve_mode(mode)
        self._say, self._files = say, folder / "wandb"
        self._folder = folder.absolute()  # W&B's service may have another working directory
        self._tags = [tags] if isinstance(tags, str) else list(tags or ())
        self._names = {
            "id": run_id,
            "dir": str(self._folder),
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "name": name or run_id,
        }
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._exit_code = 1
        self._index = 0  # of the next record in train.jsonl
        self._is_abandoned = False
        self.problem: str | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run in the background."""
        if self._mode == "disabled":
            return
        # W&B's error reporting waits for the server at exit, and prints if that fails
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb  # noqa: F401  here, not in the thread: concurrent imports can deadlock
        except Exception as error:  # missing, or broken by another version of a dependency
            self._report("off", error)
            return
        self._thread = Thread(target=self._work, args=(config,), daemon=True)
        self._thread.start()

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Queue the records written before the run was stopped: the server may lack some."""
        self._index = 0
        for record in read_train_records(self._folder / "train.jsonl") if step else ():
            if record["step"] <= step:
                self._queue(record, is_earlier=True)

    def log(self, record: Record, step: int) -> None:
        """Queue a record; returns immediately."""
        self._queue({"step": step, **record})

    def _queue(self, row: Record, *, is_earlier: bool = False) -> None:
        """Queue a row; `is_earlier`: one of an earlier attempt, which has its own offline files."""
        numbers = {key: value for key, value in row.items() if value is not None}
        index, self._index = self._index, self._index + 1

        def send(run: Run) -> None:
            # starting_step: the first row that the server has not
            if index >= run.starting_step and not (is_earlier and run.offline):
                run.log(numbers, step=index)

        self._put(send)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Queue tables and summary and close the run; returns within FINISHING seconds."""
        if self._thread is None:
            return
        self._exit_code = 0 if state == "done" else 1
        self._put(self._log_tables)
        self._put(lambda run: run.summary.update({**summary, "state": state}))
        self._put(None)
        self._thread.join(timeout=FINISHING)
        if self._thread.is_alive():
            self._is_abandoned = True
            self._warn(f"did not answer for {FINISHING} seconds; train.jsonl has every record")
            stop_service(patience=0)
        self._thread = None

    def _log_tables(self, run: Run) -> None:
        import wandb

        found = {
            name: wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            for name, (columns, rows) in find_tables(self._folder)
        }
        run.summary.update(found)  # not a row, so sending it again replaces it

    def _put(self, job: Job | None) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._jobs.put(job)

    def _work(self, config: Mapping[str, Any]) -> None:
        try:
            run = self._open(config)
            try:
                for job in iter(self._jobs.get, None):
                    job(run)
            finally:
                run.finish(exit_code=self._exit_code)
            if not run.offline:
                self._check_rows(run)
        except Exception as error:  # no error of W&B may stop training
            if not self._is_abandoned:
                is_closed = isinstance(error, MissingRows)
                self._report("incomplete" if is_closed else "off", error)
                stop_service(patience=2)

    def _open(self, config: Mapping[str, Any]) -> Run:
        """Open the run; in mode auto, offline if the server cannot be used."""
        if (self._folder / "wandb").is_symlink():
            raise OSError("wandb in the run folder is a symbolic link")
        if self._mode != "auto":
            return self._init(config, self._mode)
        try:
            wandb_server.check_reachable()
            return self._init(config, "online")
        except Exception as error:
            self._report("offline", error)
            stop_service(patience=2)
            return self._init(config, "offline")

    def _init(
        self, config: Mapping[str, Any], mode: Literal["online", "offline", "disabled"]
    ) -> Run:
        given = {key: value for key, value in self._names.items() if value is not None}
        run = open_run(
            mode,
            CONNECTING,
            UPLOADING,
            {**config, "axes": find_axes(config)},
            **{**_default_names(config), **given},
            tags=[*self._tags, *make_tags(config)],
        )
        self._say(f"Weights & Biases: {self._describe(run)}")
        return run

    def _describe(self, run: Run) -> str:
        """Describe whether the run is online or offline, and where."""
        if run.offline:
            return f"offline, project {run.project}, files in {self._files}"
        return f"online, {run.url or '/'.join((run.entity, run.project, run.id))}"

    def _check_rows(self, run: Run) -> None:
        """Raise `MissingRows` if the server lacks rows: W&B does not report those it refused."""
        deadline, pause = time.monotonic() + CONNECTING, 0.5
        while (stored := wandb_server.count_rows(run.entity, run.project, run.id)) < self._index:
            if time.monotonic() + pause > deadline:
                gap = "; a push cannot fill the gap" if stored < run.starting_step else ""
                raise MissingRows(f"the server has {stored} of {self._index} records{gap}")
            time.sleep(pause)
            pause *= 2

    def _report(self, mode: str, error: Exception) -> None:
        self._warn(f"is {mode} for this run: {_first_line(error)}")

    def _warn(self, problem: str) -> None:
        self.problem = f"Weights & Biases {problem}"
        log.warning(self.problem)


def _default_names(config: Mapping[str, Any]) -> dict[str, Any]:
    task = config.get("task")
    name = task.get("name") if isinstance(task, Mapping) else task
    return {"group": f"{name}-{config.get('scale')}", "job_type": config.get("method")}


def _resolve_mode(mode: Mode) -> Mode:
    """Replace auto by $WANDB_MODE, or by offline if there is no key."""
    if mode != "auto":
        return mode
    wanted = os.environ.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return cast(Mode, wanted)
    return "auto" if wandb_server.api_key() else "offline"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
