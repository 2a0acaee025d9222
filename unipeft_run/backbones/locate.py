"""Locate a backbone: a local folder, a miniature, or a hub id. Imports nothing heavy."""

from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.hub import is_hub_reachable


def locate(*, name: str, hub: str | None, path: str | None) -> str:
    """Return the folder or hub id of a backbone; if the hub is unreachable, its cached folder.

    Raises UserError, within seconds, if there is none.
    """
    if path is not None:
        return _check_folder(path)
    if hub is None:
        from unipeft_run.miniatures import sources

        return str(sources.fetch_backbone(name))
    if is_hub_reachable():
        return hub
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub, "config.json")
    if isinstance(cached, str):
        return str(Path(cached).parent)
    raise UserError(
        f"cannot reach the model hub for {hub}, and it is not in the local cache\n"
        "Without it: scale=mini (small real data and weights), or backbone.path=DIR"
    )


def _check_folder(path: str) -> str:
    if (Path(path) / "config.json").is_file():
        return path
    exists = Path(path).is_dir()
    problem = "this folder holds no config.json" if exists else "there is no such folder"
    raise UserError(
        f"backbone.path={path}: {problem}\n"
        "Needed: backbone.path=DIR with config.json, model.safetensors and the tokenizer. In a "
        "copied run folder it is backbone: path: in config.yaml"
    )
