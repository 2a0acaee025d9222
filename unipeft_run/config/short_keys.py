"""Short keys: `data=FILE` is task.data=FILE for the tasks on the user's own data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SPLIT_SIZES = ("validation_size", "test_size")
SHORT_KEYS = {  # by task
    "text2text": (
        *("data", "source", "target", "metric", "source_language", "target_language"),
        *SPLIT_SIZES,
    ),
    "causal_lm": (
        *("data", "prompt", "response", "prompt_template", "response_template", "metric"),
        *("extract", "answer_words", "marker"),
        *SPLIT_SIZES,
    ),
    "text_classification": ("data", "text", "label", "labels", "metric", *SPLIT_SIZES),
}
# Keys whose values are paths or names of columns, which Hydra must not read as numbers or syntax.
VERBATIM = (
    *("task.data", "task.source", "task.target", "task.text", "task.label", "task.metric"),
    *("task.prompt", "task.response"),
)
# Keys whose values are any text, with commas and braces; \n in them stands for a line break.
TEXTS = ("task.prompt_template", "task.response_template", "task.marker")


def short_keys(overrides: Iterable[str]) -> list[str]:
    """List the short keys of the tasks that `overrides` select."""
    values = [word.removeprefix("task=") for word in overrides if word.startswith("task=")]
    tasks = [task for value in values for task in value.split(",")]
    return list(dict.fromkeys(key for task in tasks for key in SHORT_KEYS.get(task, ())))


def expand_short_keys(overrides: Sequence[str]) -> list[str]:
    """Expand short keys; return other overrides unchanged."""
    known = short_keys(overrides)
    return [
        f"task.{word}" if "=" in word and word.partition("=")[0] in known else word
        for word in overrides
    ]
