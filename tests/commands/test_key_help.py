"""`unipeft-train --help KEY` describes keys from the schema."""

from __future__ import annotations

import re

import pytest
from tiny_cli import call
from tiny_config import configured

from unipeft_run import cli
from unipeft_run.commands.help import train_help
from unipeft_run.commands.key_help import describe_keys
from unipeft_run.config.schema import RunConfig
from unipeft_run.config.short_keys import SHORT_KEYS


def test_help_for_a_key_states_its_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.train, monkeypatch, "--help", "optim.schedule", "recipe", "precision") == 0
    text = capsys.readouterr().out
    assert "constant; set by optim= and the recipe of the task and scale\n" in text
    assert "two cores with roberta_mini.\n" in text, "whole sentences"
    assert "| auto; set by scale=\n" in text
    assert "polynomial | linear | cosine | constant" in text
    assert "recipe.label_smoothing" in text and "number from 0 below 1" in text
    assert call(cli.train, monkeypatch, "--help", "recip") == 2
    assert "did you mean recipe?" in capsys.readouterr().err


def test_help_of_train_shows_every_task_on_your_own_data() -> None:
    text = train_help()
    assert all(f"  task={task} data=" in text for task in SHORT_KEYS)


def test_every_key_of_a_configuration_has_help() -> None:
    plain = configured("task=sst2", "method=mam").plain()
    for section, value in plain.items():
        described = describe_keys(section)
        keys = value if section in ("evaluation", "optim", "recipe", "tracking") else ()
        assert all(f"{section}.{key}" in described for key in keys)


def test_defaults_and_bounds_read_as_on_the_command_line() -> None:
    described = "\n".join(map(describe_keys, RunConfig.model_fields))
    assert "whole number from 1 to 1,000,000,000 or null; default null" in described
    assert "default 42" in described and "default []" in described
    assert "default false" in described
    assert not re.search(r"default (True|False|None)|\de\+", described)
