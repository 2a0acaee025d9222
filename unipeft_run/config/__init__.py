"""Configuration: compose it from conf/, validate it, identify the run. Imports nothing heavy.

`compose` turns a command line into a Hydra configuration, `resolve` turns that into a typed
`RunConfig`, and `plan` adds the identity of the run. Everything below the command line takes the
typed sections.
"""

from unipeft_run.config.compose import compose as compose
from unipeft_run.config.compose import implied_overrides as implied_overrides
from unipeft_run.config.compose import normalise_overrides as normalise_overrides
from unipeft_run.config.identity import PlannedRun as PlannedRun
from unipeft_run.config.identity import check_config as check_config
from unipeft_run.config.identity import plan as plan
from unipeft_run.config.identity import plan_config as plan_config
from unipeft_run.config.identity import run_id as run_id
from unipeft_run.config.resolve import resolve as resolve
from unipeft_run.config.schema import RunConfig as RunConfig
from unipeft_run.config.stored import load as load
