"""Where the cells of a grid run: Hydra's launchers, and reruns of cells whose worker was killed."""

from unipeft_run.sweeps.engines.engine import Engine
from unipeft_run.sweeps.engines.rounds import launch_in_rounds

__all__ = ["Engine", "launch_in_rounds"]
