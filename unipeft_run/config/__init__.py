"""Configuration: composed from conf/, checked, named. Imports nothing heavy."""

from unipeft_run.config.compose import compose as compose
from unipeft_run.config.compose import implied as implied
from unipeft_run.config.identity import load as load
from unipeft_run.config.identity import run_folder as run_folder
from unipeft_run.config.identity import run_id as run_id
from unipeft_run.config.resolve import resolve as resolve
