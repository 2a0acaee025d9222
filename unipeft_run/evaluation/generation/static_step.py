"""The decoder step with static shapes, recorded as a CUDA graph on a GPU.

A step attends to all positions of the target under a mask, and the current position is a tensor on
the device. The kernels are thus the same in every step and in every search over about as many
sources of about the same length, so that a GPU can repeat them as one graph.

Shape legend: R rows of the allocation, B sources, K beams, P prefix length, S source positions,
L longest target, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.backbones.families import family_of
from unipeft_run.data.batching import round_up
from unipeft_run.evaluation.generation.cache import BeamCache
from unipeft_run.evaluation.generation.decoder import (
    constant_memories,
    count_longest,
    find_prefixes,
)
from unipeft_run.evaluation.generation.encoder_decoder import EncoderDecoder, mask_sources
from unipeft_run.evaluation.generation.fallback import find_obstacle, is_recomputed
from unipeft_run.evaluation.generation.settings import Settings
from unipeft_run.evaluation.generation.static_cache import StaticCrossCache, StaticSelfCache
from unipeft_run.training.compute.graphs import CudaRecorder, Recorder, describe_failure
from unipeft_run.tuners.adapter import find_adapter

ROWS = 8  # the number of sources is rounded up to a multiple of it
COLUMNS = 64  # the same for source positions

log = logging.getLogger(__name__)


def can_record(model: Any) -> bool:
    """Return whether `StepGraphs` would record this model's decoder steps."""
    return _is_on_current_gpu(model) and has_static_steps(model)


def _is_on_current_gpu(model: Any) -> bool:
    device = next(model.parameters()).device
    return device.type == "cuda" and device.index == torch.cuda.current_device()


def has_static_steps(model: Any) -> bool:
    """Return whether `generate` can run this model's decoder steps with static shapes."""
    if not model.config.is_encoder_decoder or find_obstacle(model) or is_recomputed(model):
        return False
    return not family_of(model.config).relative_bias and find_adapter(model) is None


class StepGraphs:
    """Recorded decoder steps of one model, for all searches inside this context.

    A step is recorded once for each number of rows, and reused while the width of the sources stays
    the same; so pass the longest sources first. Parameters must not change inside. On a CPU, on a
    GPU that is not the current one, and where recording fails, the steps have the same static
    shapes but are not recorded. `recorder` replaces the one that records CUDA graphs.
    """

    def __init__(self, model: Any, recorder: Recorder | None = None) -> None:
        if not has_static_steps(model):
            raise ValueError(
                "graphs are for BART and mBART, without UniPELT or methods of the PEFT library"
            )
        self.model, self.recorder = model, recorder
        if recorder is None and _is_on_current_gpu(model):
            self.recorder = CudaRecorder("generation")
        self.contexts = ExitStack()
        self.is_open = False
        self.key: Hashable = None
        self.space: Workspace | None = None

    def __enter__(self) -> Self:
        self.contexts.enter_context(constant_memories(self.model))
        self.is_open = True
        return self

    def __exit__(self, *error: object) -> None:
        self.is_open, self.space = False, None
        self.contexts.close()

    def open(self, settings: Settings, states: Tensor, rows: int) -> Workspace:
        """Return the tensors for a search over `rows` sources with these `states` [B, S, D]."""
        if not self.is_open:
            raise ValueError("graphs are a context: with StepGraphs(model) as graphs: ...")
        key = (settings.num_beams, settings.max_length, states.size(1), states.dtype)
        if self.space is None or self.key != key or rows > self.space.rows:
            self.space = None  # its memory is needed
            self.space, self.key = Workspace(self.model, settings, states, rows), key
        return self.space

    def run(self, space: Workspace, rows: int, step: Callable[[], Tensor]) -> Tensor:
        """Return the result of `step`, which reads and writes `rows` rows of `space` alone."""
        if self.recorder is None:
            return step()
        if rows not in space.replays:
            self._record(self.recorder, space, rows, step)
        return space.replays[rows]() if rows in space.replays else step()

    def _record(
        self, recorder: Recorder, space: Workspace, rows: int, step: Callable[[], Tensor]
    ) -> None:
        try:
            recorder.warm_up(step)
            space.replays[rows] = recorder.record(step)
        except RuntimeError as error:  # also out of memory
            reason = describe_failure(error)
            log.warning("Decoder steps are not recorded as CUDA graphs: %s.", reason)
            self.recorder = None
            space.replays.clear()


class Workspace:
    """The tensors that recorded steps read and write, with R = `rows` rows.

    Attributes:
        tokens: the last tokens of the targets, [R, K].
        mask: the positions of the targets that each beam sees, [R, 1, K, P + (L - 1) K].
        cross_mask: those of the sources, [R, 1, 1, P + S].
        place: the current position, [].
        own, cross: the caches of the targets and of the sources; `cache`: both.
        replays: the recorded step for each number of rows.
    """

    def __init__(self, model: Any, settings: Settings, states: Tensor, rows: int) -> None:
        self.rows, self.replays = rows, dict[int, Callable[[], Tensor]]()
        own, cross = (find_prefixes(model, kind) for kind in ("self", "cross"))
        self.prefix, steps = count_longest(own), settings.max_length - 1
        device, beams = states.device, settings.num_beams
        self.place = torch.zeros((), dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, beams, dtype=torch.long, device=device)
        width = self.prefix + steps * beams
        self.mask = torch.ones(rows, 1, beams, width, dtype=torch.bool, device=device)
        width = count_longest(cross) + states.size(1)
        self.cross_mask = torch.ones(rows, 1, 1, width, dtype=torch.bool, device=device)
        self.own = StaticSelfCache(own, steps, place=self.place)
        self.cross = StaticCrossCache(cross)
        self.cache = BeamCache(self.own, self.cross)

    def restart(self, cross_mask: Tensor, rows: int) -> None:
        """Begin a search over the sources of `cross_mask` [B, 1, 1, P + S], with `rows` rows."""
        self.own.restart()
        self.cache.is_updated.clear()
        self.mask[..., self.prefix :] = False
        self.cross_mask[: len(cross_mask)] = cross_mask
        self.use(len(cross_mask), rows)

    def use(self, sources: int, rows: int) -> None:
        """Use the first `rows` rows; those after the first `sources` see every position."""
        self.own.use(rows)
        self.cross.use(rows)
        self.mask[sources:] = True  # without a visible one, a softmax would be NaN
        self.cross_mask[sources:] = True

    def keep(self, rows: Tensor) -> None:
        """Move the sources at `rows` to the front."""
        self.cache.keep(rows)
        self.cross_mask[: len(rows)] = self.cross_mask[rows]

    def write(self, tokens: Tensor, visible: Tensor, position: int) -> None:
        """Set the input of the step at `position`: `tokens` [B, K], `visible` [B, 1, K, n K]."""
        self.tokens[: len(tokens)] = tokens
        self.mask[: len(tokens), ..., self.prefix : self.prefix + visible.size(-1)] = visible
        self.place.fill_(position)


class StaticDecoder(EncoderDecoder):
    """The decoder with static shapes; rows are halved whenever the remaining sources fit."""

    def __init__(
        self,
        model: Any,
        states: Tensor,
        attention_mask: Tensor,
        settings: Settings,
        graphs: StepGraphs,
    ) -> None:
        added = -states.size(1) % COLUMNS
        states, mask = F.pad(states, (0, 0, 0, added)), F.pad(attention_mask, (0, added))
        super().__init__(model, states, mask, settings)
        self.graphs, self.size = graphs, int(round_up(len(states), ROWS))
        self.states = F.pad(states, (0, 0, 0, 0, 0, self.size - len(states)))
        self.space = graphs.open(settings, states, self.size)
        self.own, self.cache = self.space.own, self.space.cache
        self.space.restart(mask_sources(mask, self.space.cross_mask.size(-1)), self.size)
        self.cross_mask = self.space.cross_mask[: self.size]

    def keep(self, rows: Tensor) -> None:
        self.space.keep(rows)
        while self.size > ROWS and (half := (self.size + 1) // 2) >= len(rows):
            self.size = half
        self.space.use(len(rows), self.size)
        self.states = self.states[: self.size]
        self.cross_mask = self.space.cross_mask[: self.size]

    def step(self, tokens: Tensor, visible: Tensor) -> Tensor:
        self.space.write(tokens, visible, self.own.position)
        if self.own.position == 0:  # this step projects the sources
            return self._run_rows()[: len(tokens)]
        return self.graphs.run(self.space, self.size, self._run_rows)[: len(tokens)]

    def _run_rows(self) -> Tensor:
        return self._run(self.space.tokens[: self.size], self.space.mask[: self.size])

    def _share_position(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        del module
        positions = self.space.place.expand_as(kwargs["position_ids"])
        return args, {**kwargs, "position_ids": positions}
