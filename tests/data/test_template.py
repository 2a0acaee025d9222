"""Templates of prompts and responses."""

from __future__ import annotations

import pytest

from unipeft_run.data.tasks.template import Template
from unipeft_run.errors import UserError


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("Q: {q}\nA:", {"q": "why?"}, "Q: why?\nA:"),
        ("{a}{b}{a}", {"a": "x", "b": "-"}, "x-x"),
        ("{{{a}}} {{", {"a": "{b}"}, "{{b}} {"),
        ("plain ", {}, "plain "),
        ("", {}, ""),
        ("{a b.c}", {"a b.c": "!"}, "!"),
    ],
)
def test_fields_are_replaced(text: str, values: dict[str, str], filled: str) -> None:
    assert Template(text, "task.prompt_template").fill_one(values) == filled


def test_every_example_is_filled() -> None:
    template = Template("{a}-{b}", "key")
    assert template.fields == ("a", "b")
    assert template.fill({"a": ["1", "2"], "b": ["x", "y"], "c": ["", ""]}) == ["1-x", "2-y"]


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a!r}", "{a:>3}", "{a"])
def test_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^task\.prompt_template: "):
        _ = Template(text, "task.prompt_template").fields


def test_unknown_fields_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"questoin is unknown \(did you mean question\?\)"):
        Template("{questoin}", "task.prompt_template").check(("question", "choices"))
