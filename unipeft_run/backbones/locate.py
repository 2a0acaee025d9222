"""Where a backbone is: a folder, a miniature, or an id of the hub. Imports nothing heavy."""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from unipeft_run.data.tasks.hub import is_hub_reachable
from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources


def locate(*, name: str, hub: str | None, path: str | None) -> str:
    """The folder or hub id of a backbone; where the hub is out of reach, its place in the cache.

    Raises UserError, within seconds, where there is none.
    """
    if path is not None:
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"backbone.path: no config.json in {path}")
        return path
    if hub is None:
        return str(sources.fetch_backbone(name))
    if is_hub_reachable():
        return hub
    if cached := try_to_load_from_cache(hub, "config.json"):
        return str(Path(str(cached)).parent)
    raise UserError(
        f"cannot reach the model hub for {hub}, and it is not in the local cache\n"
        "Without it: scale=mini (small real data and weights), or backbone.path=DIR"
    )
