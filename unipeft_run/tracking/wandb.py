"""Weights & Biases: one run object a run, written from a thread of its own.

A missing package or key, a server that is slow, wrong or away: training neither stops nor waits.
train.jsonl has everything, so nothing is lost where this tracker goes off.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from unipeft_run.tracking import Record, Tracker
from unipeft_run.tracking.content import axes, tables, tags

if TYPE_CHECKING:
    from wandb import Run

Mode = Literal["auto", "online", "offline", "disabled"]
Job = Callable[["Run"], object]

CONNECTING, UPLOADING = 15, 60  # seconds of patience with a server

log = logging.getLogger(__name__)


class WandB(Tracker):
    """Sends what `log` gets to the run `run_id`; its files are in `folder`/wandb.

    `mode` auto: what $WANDB_MODE says, else online where there is a key ($WANDB_API_KEY or
    netrc), else offline; online that cannot be had becomes offline. `job_type` is the method
    unless given, `group` the task and its scale, and the axes are tags beside those given.
    `problem`: why the run is not there, or not whole; None while all is well. A record of a step
    that the server has already is dropped there, so a replayed run is not doubled.
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
        self._exit_code, self._step = 1, 0
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

    def log(self, record: Record, step: int) -> None:
        """Queue a record; returns at once."""
        numbers = {key: value for key, value in record.items() if value is not None}
        self._step = step
        self._put(lambda run: run.log(numbers, step=step))

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
        if found:
            run.log(found, step=self._step)

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
        except Exception as error:  # whatever it is, training goes on
            self._say_off(error)

    def _say_off(self, error: Exception) -> None:
        self.problem = f"Weights & Biases is off for this run: {_first_line(error)}"
        log.warning(self.problem)

    def _open(self, wandb: Any, config: Mapping[str, Any]) -> Run:
        wandb.setup(wandb.Settings(silent=True))
        if self._mode != "auto":
            return self._init(wandb, config, self._mode)
        try:
            _knock()
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
    return "auto" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(_server()).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def _knock() -> None:
    """Raise where no server is; much sooner than wandb itself gives up."""
    try:
        urlopen(_server(), timeout=5).close()
    except HTTPError as answer:
        if answer.code >= 500:
            raise


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
