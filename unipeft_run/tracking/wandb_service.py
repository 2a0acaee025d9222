"""W&B's service process, wandb-core: open runs in it, and stop it when it fails."""

from __future__ import annotations

import atexit
import logging
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)


def open_run(
    mode: Literal["online", "offline", "disabled"],
    connecting: float,
    uploading: float,
    config: dict[str, Any],
    **names: Any,
) -> Run:
    """Open a W&B run. It waits `connecting` s for the server at first, `uploading` s at the end."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=connecting,
        finish_timeout=uploading,
        finish_timeout_raises=True,
    )
    wandb.setup(wandb.Settings(silent=True))
    run: Run = wandb.init(
        **{key: value for key, value in names.items() if value is not None},
        config=config,
        mode=mode,
        resume="allow" if mode == "online" else None,  # resuming asks the server
        settings=settings,
        reinit="create_new",
    )
    atexit.unregister(_teardown)
    atexit.register(_teardown)  # runs before W&B's own hook, which fails if the service is dead
    run.define_metric("*", step_metric="step")
    return run


def stop_service(patience: float) -> None:
    """Stop the service process, so that the next run gets a new one; wait at most `patience` s.

    Otherwise a run that failed to open counts as open, and W&B waits for it at exit.
    """
    thread = Thread(target=_teardown, daemon=True)
    thread.start()
    thread.join(patience)


def _teardown() -> None:
    import wandb

    try:
        wandb.teardown()
    except (Exception, SystemExit) as error:  # SystemExit with the service's exit code
        log.debug("W&B's service process did not stop normally: %s", error)
