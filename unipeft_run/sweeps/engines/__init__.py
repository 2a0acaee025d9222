"""Running the cells of a grid on Hydra's launchers; cells whose worker was killed run again."""

from unipeft_run.sweeps.engines.engine import Engine
from unipeft_run.sweeps.engines.rounds import launch_in_rounds

__all__ = ["Engine", "launch_in_rounds"]
