"""`unipeft-train --help KEY` describes keys from the schema."""

from __future__ import annotations

import pytest
from tiny_cli import call
from tiny_config import configured

from unipeft_run import cli
from unipeft_run.commands.key_help import describe_keys


def test_help_for_a_key_states_its_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.train, monkeypatch, "--help", "optim.schedule", "recipe") == 0
    text = capsys.readouterr().out
    assert "polynomial | linear | cosine | constant" in text
    assert "recipe.label_smoothing" in text and "number from 0 below 1" in text
    assert call(cli.train, monkeypatch, "--help", "recip") == 2
    assert "did you mean recipe?" in capsys.readouterr().err


def test_every_key_of_a_configuration_has_help() -> None:
    plain = configured("task=sst2", "method=mam").plain()
    described = describe_keys("evaluation") + describe_keys("tracking") + describe_keys("optim")
    for section in ("evaluation", "optim"):
        assert all(f"{section}.{key}" in described for key in plain[section])
