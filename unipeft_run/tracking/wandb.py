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

if TYPE_CHECKING:
    from wandb import Run

Mode = Literal["auto", "online", "offline", "disabled"]
Job = Callable[["Run"], object]

CONNECTING, UPLOADING = 15, 60  # seconds of patience with a server

log = logging.getLogger(__name__)


class WandB(Tracker):
    """Sends what `log` gets to the run `run_id`; its files are in `folder`/wandb.

    `mode` auto: what $WANDB_MODE says, else online where there is a key ($WANDB_API_KEY or
    netrc), else offline; online that cannot be had becomes offline.
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
        self._given = {
            "id": run_id,
            "dir": str(folder),
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
            "name": name or run_id,
        }
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._exit_code = 1

    def start(self, config: Mapping[str, Any]) -> None:
        """Open the run in the background."""
        if self._mode == "disabled":
            return
        # its reports on itself wait for the server when the process ends, and print when that fails
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb  # here, not in the thread: two threads importing can trip each other
        except ImportError as error:
            _say_off(error)
            return
        self._thread = Thread(target=self._work, args=(wandb, config), daemon=True)
        self._thread.start()

    def log(self, record: Record, step: int) -> None:
        """Queue a record; returns at once."""
        numbers = {key: value for key, value in record.items() if value is not None}
        self._put(lambda run: run.log(numbers, step=step))

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Queue the summary, close the run and wait for that, within reason."""
        if self._thread is None:
            return
        self._exit_code = 0 if state == "done" else 1
        self._put(lambda run: run.summary.update({**summary, "state": state}))
        self._put(None)
        self._thread.join(timeout=2 * CONNECTING + UPLOADING)
        if self._thread.is_alive():
            log.warning("Weights & Biases does not answer; train.jsonl has every record")
        self._thread = None

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
            _say_off(error)

    def _open(self, wandb: Any, config: Mapping[str, Any]) -> Run:
        wandb.setup(wandb.Settings(silent=True))
        if self._mode != "auto":
            return self._init(wandb, config, self._mode)
        try:
            _knock()
            return self._init(wandb, config, "online")
        except Exception as error:
            log.warning("Weights & Biases is offline for this run: %s", _first_line(error))
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
            **self._given,
            config=dict(config),
            mode=mode,
            resume=resume,
            settings=settings,
            reinit="create_new",
        )
        return run


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


def _say_off(error: Exception) -> None:
    log.warning("Weights & Biases is off for this run: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
