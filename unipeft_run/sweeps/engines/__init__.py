"""Where the cells of a grid run: Hydra's launchers, with our semantics where a worker is killed."""

from unipeft_run.sweeps.engines.engine import Engine
from unipeft_run.sweeps.engines.rounds import in_rounds

__all__ = ["Engine", "in_rounds"]
