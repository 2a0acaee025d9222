"""Model folders that try to execute code, and a check whether they did."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_files import write_roberta

CODE = """
from pathlib import Path
Path({proof!r}).write_text("executed")
from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizerFast
class Config(RobertaConfig): model_type = "roberta"
class Model(RobertaForSequenceClassification): config_class = Config
class Tokenizer(RobertaTokenizerFast): pass
"""
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForSequenceClassification": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}


class HostileModel:
    """A complete model folder with an `evil.py`, which writes the file `proof` when executed."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_roberta(folder / "model")
        self.proof = folder / "proof"
        (self.folder / "evil.py").write_text(CODE.format(proof=str(self.proof)))

    def change(self, name: str, **content: Any) -> None:
        """Set keys of a JSON file in the folder; create the file if it is missing."""
        change_json(self.folder / name, content)

    def pickle_weights(self, name: str = "pytorch_model.bin") -> None:
        """Replace the weights by a pickle that executes code when it is loaded."""
        (self.folder / "model.safetensors").unlink()
        write_pickle(self.folder / name, self.proof)

    @property
    def was_executed(self) -> bool:
        return self.proof.exists()


class _Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


def write_pickle(file: Path, proof: Path) -> None:
    """Write a pickle that creates `proof` when it is loaded."""
    file.write_bytes(pickle.dumps({"weight": _Bomb(proof)}))


def change_json(file: Path, content: Mapping[str, Any]) -> None:
    """Set keys of a JSON file; create the file if it is missing."""
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**before, **content}))
