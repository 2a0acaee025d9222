"""A task runs on the families of its type only, and every type of task has its class."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
from tiny_config import compose_once

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config import resolve
from unipeft_run.config.messages import Illegal
from unipeft_run.config.rules import DOES, NEEDS
from unipeft_run.data.tasks.base import Kind
from unipeft_run.task_types.registry import TASK_TYPES

TASKS = {  # kind -> a task of that kind
    "seq2seq": "xsum",
    "classification": "sst2",
    "regression": "stsb",
    "causal": "commonsense",
    "image_classification": "cifar100",
    "retrieval": "didemo",
}


def test_every_kind_has_a_type_and_a_message() -> None:
    assert set(get_args(Kind)) == set(TASK_TYPES) == set(DOES) == set(TASKS)
    assert all(TASK_TYPES[kind].kind == kind for kind in TASKS)
    assert {NEEDS.get(kind, kind) for kind in TASKS} == {f.task_type for f in FAMILIES.values()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", TASKS)
def test_other_families_are_refused(kind: str, family: str) -> None:
    cfg = copy.deepcopy(compose_once(f"task={TASKS[kind]}", "method=none"))
    cfg.backbone.family = family
    if FAMILIES[family].task_type == NEEDS.get(kind, kind):
        assert resolve(cfg).task.name == TASKS[kind]
        return
    with pytest.raises(Illegal) as refusal:
        resolve(cfg)
    assert f"task {TASKS[kind]} is of type {kind}, but backbone " in str(refusal.value)
    assert f" is of type {FAMILIES[family].task_type}; use a " in str(refusal.value)
    assert "\n" not in str(refusal.value)
