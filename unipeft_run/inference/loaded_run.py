"""`load_run`: a finished run as one object, with its model, tokenizer and `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from unipeft_run.backbones.load import check_lengths
from unipeft_run.config import RunConfig
from unipeft_run.config.schema import DecodingConfig
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.build import build_task
from unipeft_run.deltas.build import load_trained
from unipeft_run.deltas.positions import count_occupied
from unipeft_run.errors import UserError
from unipeft_run.inference.inputs import collect_inputs
from unipeft_run.inference.predictor import Predictor
from unipeft_run.inference.stored_run import (
    StoredRun,
    choose_batch_size,
    open_run,
    override_decoding,
)
from unipeft_run.task_types.classification import ClassPrediction
from unipeft_run.task_types.registry import task_type_of
from unipeft_run.training.precision import autocast_dtype, evaluation_precision


@dataclass(frozen=True)
class LoadedRun:
    """A finished run in memory.

    Calling it calls the model, and unknown attributes are looked up in the model. So code for
    version 0.1, in which `load_run` returned the bare model, still works.
    """

    folder: Path
    config: RunConfig
    task: Task
    model: Any
    backbone: str  # the folder or hub id of the backbone

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the backbone, loaded on first use."""
        return task_type_of(self.task).load_tokenizer(self.backbone)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; tensors are moved to its device."""
        return self.model(*map(self._moved, args), **{k: self._moved(v) for k, v in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "model" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self.model, name)

    def _moved(self, value: Any) -> Any:
        return value.to(self.model.device) if isinstance(value, torch.Tensor) else value

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits; () for a task that writes text."""
        return tuple(self.task.label_names)

    def predict(
        self,
        inputs: Sequence[Any],
        *,
        batch_size: int | None = None,
        probabilities: bool = False,
        **decoding: Any,
    ) -> list[str] | list[ClassPrediction] | list[float]:
        """Return the generated text, the class name or the number for every input, in order.

        Args:
            inputs: texts; for a task that reads two columns tuples; or mappings by column name.
            batch_size: inputs in a batch; by default the run's `evaluation.batch_size`.
            probabilities: return a `ClassPrediction` instead of the class name.
            decoding: keys of `evaluation.decoding` that override the run's, as in `num_beams=1`.

        Raises UserError for an input that is not what the task reads, and for a wrong setting.
        """
        predictor = self.predictor(batch_size, **decoding)
        if probabilities and not self.label_names:
            raise UserError(
                f"probabilities=True: task {self.task.name} {self._describe_output()}, not classes"
            )
        found: list[Any] = predictor(collect_inputs(self.task, inputs))
        if probabilities or not self.label_names:
            return found
        return [prediction.label for prediction in found]

    def _describe_output(self) -> str:
        """Say what the task predicts, if not classes."""
        if self.task.kind == "regression":
            return "predicts numbers"
        return "generates text" if self.task.generates else "chooses among texts"

    def predictor(self, batch_size: int | None = None, **decoding: Any) -> Predictor:
        """Return a `Predictor` with the run's settings, overridden by those given."""
        kind = task_type_of(self.task)
        step = kind.step(
            task=self.task,
            tokenizer=self.tokenizer,
            collator=kind.build_collator(self.task, self.tokenizer, self.model),
            loss_fn=kind.build_loss(self.config.recipe.label_smoothing),
            decoding=self.decoding(**decoding),
            references=self.config.evaluation.references,
            autocast=autocast_dtype(evaluation_precision(self.config.precision)),
            graphs=self.config.compute.graphs,
        )
        return Predictor(self.model, step, choose_batch_size(self.config, batch_size))

    def decoding(self, **changes: Any) -> DecodingConfig | None:
        """Return the run's decoding settings with `changes`; None if it generates no text."""
        settings = override_decoding(self.config, changes)
        if settings is not None:
            limit = [(settings.length_key, settings.find_longest())]
            check_lengths(limit, self.model.config, count_occupied(self.model))
        return settings


def load_run(
    path: Path | str,
    *,
    allow: str | Sequence[str] = (),
    backbone_path: Path | str | None = None,
    device: torch.device | str | None = None,
) -> LoadedRun:
    """Load a finished run: its backbone with its delta, in eval mode, its tokenizer and task.

    Args:
        path: a run folder, or the run id (or its beginning) of a run in `outputs`.
        allow: a prefix, or several, of classes outside this package that the run may name; no
            other code is executed.
        backbone_path: the backbone's current folder, for a run copied from elsewhere.
        device: where the model goes; by default the GPU if there is one.

    Raises UserError if there is no such run, and if its backbone or a class changed since.
    """
    return load_stored(open_run(path, allow=allow, backbone_path=backbone_path), device)


def load_stored(run: StoredRun, device: torch.device | str | None = None) -> LoadedRun:
    """Load the weights of an opened run."""
    source = run.locate_backbone()
    task = build_task(run.config.task)
    model: Any = load_trained(run.config, source, run.folder)
    model.to(PartialState().device if device is None else device)
    return LoadedRun(run.folder, run.config, task, model, source)
