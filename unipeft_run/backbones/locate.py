"""Where a backbone is: a folder, a miniature, or an id of the hub. Imports nothing heavy."""

from pathlib import Path

from unipeft_run import sources
from unipeft_run.errors import UserError
from unipeft_run.tasks.hub import reachable


def locate(*, name: str, hub: str | None, path: str | None) -> str:
    """The folder or hub id of a backbone.

    Raises UserError, within seconds, where there is none.
    """
    if path is not None:
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"backbone.path: no config.json in {path}")
        return path
    if hub is None:
        return str(sources.fetch_backbone(name))
    if not reachable():
        raise UserError(
            f"cannot reach the model hub for {hub}\n"
            "Without it: scale=mini (small real data and weights), or backbone.path=DIR"
        )
    return hub
