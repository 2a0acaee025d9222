"""Weights & Biases: one run object a run, written from a thread of its own.

A missing package or key, a server that is slow, wrong or away: training neither stops nor waits.
train.jsonl has everything, so nothing is lost where this tracker goes off.
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
from unipeft_run.tracking.content import axes, tables, tags
from unipeft_run.tracking.jsonl import records

if TYPE_CHECKING:
    from wandb import Run

Mode = Literal["auto", "online", "offline", "disabled"]
Job = Callable[["Run"], object]

CONNECTING, UPLOADING = 15, 30  # seconds of patience with a server

log = logging.getLogger(__name__)


class WandB(Tracker):
    """Sends what `log` gets to the run `run_id`; its files are in `folder`/wandb.

    `mode` auto: what $WANDB_MODE says, else online where there is a key ($WANDB_API_KEY or
    netrc), else offline; online that cannot be had becomes offline. `job_type` is the method
    unless given, `group` the task and its scale, and the axes are tags beside those given.
    `problem`: why the run is not there, or not whole; None while all is well. A row there is a
    record here, with its place in train.jsonl as W&B's own step and ours beside it as `step`: what
    the server has already is not sent again, so a run taken up or replayed is never doubled.
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
        tags: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        self._mode = _resolve(mode)
        self._folder, self._tags = folder, list(tags)
        self._given: dict[str, Any] = {
            "id": run_id,
            "dir": str(folder),
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "name": name or run_id,
        }
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._exit_code, self._place = 1, 0  # of the next record among those of the run
        self.problem: str | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run in the background."""
        if self._mode == "disabled":
            return
        # its reports on itself wait for the server when the process ends, and print when that fails
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb  # here, not in the thread: two threads importing can trip each other
        except ImportError as error:
            self._say_off(error)
            return
        self._thread = Thread(target=self._work, args=(wandb, config), daemon=True)
        self._thread.start()

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Find the place of the next record: after those of the run before it was stopped."""
        found = records(self._folder / "train.jsonl") if step else []
        self._place = sum(record["step"] <= step for record in found)

    def log(self, record: Record, step: int) -> None:
        """Queue a record; returns at once."""
        numbers = {key: value for key, value in record.items() if value is not None}
        place, self._place = self._place, self._place + 1

        def send(run: Run) -> None:
            if place >= run.starting_step:  # where the server's rows end
                run.log({"step": step, **numbers}, step=place)

        self._put(send)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Queue tables and summary, close the run and wait for that, within reason."""
        if self._thread is None:
            return
        self._exit_code = 0 if state == "done" else 1
        self._put(self._log_tables)
        self._put(lambda run: run.summary.update({**summary, "state": state}))
        self._put(None)
        self._thread.join(timeout=2 * CONNECTING + UPLOADING)
        if self._thread.is_alive():
            self.problem = "Weights & Biases does not answer; train.jsonl has every record"
            log.warning(self.problem)
        self._thread = None

    def _log_tables(self, run: Run) -> None:
        import wandb

        found = {
            name: wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            for name, (columns, rows) in tables(self._folder)
        }
        run.summary.update(found)  # not a row: one that is sent again replaces the one before

    def _put(self, job: Job | None) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._jobs.put(job)

    def _work(self, wandb: Any, config: Mapping[str, Any]) -> None:
        try:
            run = self._open(wandb, config)
            try:
                for job in iter(self._jobs.get, None):
                    job(run)
            finally:
                run.finish(exit_code=self._exit_code)
            if not run.offline:
                self._check_rows(run)
        except Exception as error:  # whatever it is, training goes on
            self._say_off(error)

    def _check_rows(self, run: Run) -> None:
        """Raise where the server lacks rows: what it refused, `finish` does not tell."""
        deadline, pause = time.monotonic() + CONNECTING, 0.5
        while (there := wandb_server.rows(run.entity, run.project, run.id)) < self._place:
            if time.monotonic() + pause > deadline:
                raise OSError(f"the server has {there} of {self._place} records")
            time.sleep(pause)
            pause *= 2

    def _say_off(self, error: Exception) -> None:
        self.problem = f"Weights & Biases is off for this run: {_first_line(error)}"
        log.warning(self.problem)

    def _open(self, wandb: Any, config: Mapping[str, Any]) -> Run:
        wandb.setup(wandb.Settings(silent=True))
        if self._mode != "auto":
            try:
                return self._init(wandb, config, self._mode)
            except Exception:
                wandb.teardown()  # or else the run counts as open
                raise
        try:
            wandb_server.knock()
            return self._init(wandb, config, "online")
        except Exception as error:
            self.problem = f"Weights & Biases is offline for this run: {_first_line(error)}"
            log.warning(self.problem)
            wandb.teardown()  # or else the run counts as open
            return self._init(wandb, config, "offline")

    def _init(self, wandb: Any, config: Mapping[str, Any], mode: str) -> Run:
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=CONNECTING,
            finish_timeout=UPLOADING,
            finish_timeout_raises=True,
        )
        resume = "allow" if mode == "online" else None  # without a server there is nothing to ask
        run: Run = wandb.init(
            **{**_names(config), **{k: v for k, v in self._given.items() if v is not None}},
            config={**config, "axes": axes(config)},
            tags=[*self._tags, *tags(config)],
            mode=mode,
            resume=resume,
            settings=settings,
            reinit="create_new",
        )
        run.define_metric("*", step_metric="step")
        return run


def _names(config: Mapping[str, Any]) -> dict[str, Any]:
    task = config.get("task")
    name = task["name"] if isinstance(task, Mapping) else task
    return {"group": f"{name}-{config.get('scale')}", "job_type": config.get("method")}


def _resolve(mode: Mode) -> Mode:
    """`auto` stays only where there is a key to try."""
    if mode != "auto":
        return mode
    wanted = os.environ.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return cast(Mode, wanted)
    return "auto" if wandb_server.key() else "offline"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
