"""Write load.py, the script of a delta export that loads it and predicts; example inputs."""

from __future__ import annotations

import json
import re

from unipeft_run.data.new_inputs import input_columns
from unipeft_run.data.tasks.base import Task

ARGUMENTS = {"image_classification": "FILE"}  # kind of a task -> an input on a command line
EXAMPLES = {"image_classification": '"picture.png"'}
LOAD = '''"""Load this run: `from load import run`."""

from pathlib import Path

from unipeft_run import load_run

run = load_run(Path(__file__).parent{allow})
'''
PREDICT = '''"""Load this run: `from load import run`. Predict: `python load.py {arguments} ...`."""

import sys
from pathlib import Path

from unipeft_run import load_run

words = sys.argv[1:] if __name__ == "__main__" else []
if __name__ == "__main__" and (not words or len(words) % {count}):
    sys.exit("usage: python load.py {arguments} ...")
run = load_run(Path(__file__).parent{allow})
for prediction in run.predict({inputs}) if words else ():
    print(prediction)
'''
PREDICT_JSON = '''"""Load this run: `from load import run`. Predict: `python load.py JSON ...`.

Each argument is an input as a JSON object, such as {example}.
"""

import json
import sys
from pathlib import Path

from unipeft_run import load_run

words = sys.argv[1:] if __name__ == "__main__" else []
try:
    inputs = [json.loads(word) for word in words]
except ValueError as error:
    sys.exit(f"not JSON: {{error}}")
if __name__ == "__main__" and not words:
    sys.exit("usage: python load.py JSON ...")
run = load_run(Path(__file__).parent{allow})
for prediction in run.predict(inputs) if words else ():
    print(prediction)
'''


def write_loader(task: Task, allow: str) -> str:
    """Return the text of load.py for a run of `task`. `allow`: further arguments of load_run."""
    if task.no_predictions:
        return LOAD.format(allow=allow)
    columns = input_columns(task)
    if task.columns.lists:
        return PREDICT_JSON.format(allow=allow, example=example_input(task))
    rows = f"[words[i : i + {len(columns)}] for i in range(0, len(words), {len(columns)})]"
    inputs = "words" if len(columns) == 1 else rows
    arguments = list_arguments(task)
    return PREDICT.format(allow=allow, inputs=inputs, count=len(columns), arguments=arguments)


def list_arguments(task: Task) -> str:
    """Return the arguments of load.py for one input, as in `PREMISE HYPOTHESIS`; "" for none."""
    columns = input_columns(task)
    if task.no_predictions:
        return ""
    if task.columns.lists:
        return "JSON"
    if len(columns) == 1:
        return ARGUMENTS.get(task.kind, "TEXT")
    return " ".join(re.sub(r"\W+", "_", column).upper() for column in columns)


def example_input(task: Task) -> str:
    """Return an input of the task as a Python expression, which is JSON for a mapping."""
    columns, lists = input_columns(task), task.columns.lists
    if len(columns) == 1 and not lists:
        return EXAMPLES.get(task.kind, '"a text"')
    if len(columns) == 2 and not lists:
        return '("a text", "another text")'
    values = ('["a choice", "another"]' if name in lists else '"a text"' for name in columns)
    pairs = (f"{json.dumps(name)}: {value}" for name, value in zip(columns, values, strict=True))
    return "{" + ", ".join(pairs) + "}"
