"""Contenders of the training benchmark: unipeft, PEFT in a plain loop, and the frozen backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from shapes import build_model
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq
from transformers.trainer_pt_utils import LengthGroupedSampler

from unipeft_run.config import compose, resolve
from unipeft_run.config.schema import ComputeConfig
from unipeft_run.data.batching import IGNORED, Collator, train_loader
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.slots import build_slots
from unipeft_run.training.accumulation import GradientAccumulator
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.compute.shapes import ShapeGrid
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.micro_batches import MicroBatch, MicroBatches
from unipeft_run.training.optim import build_optimizer_and_schedule
from unipeft_run.training.precision import build_accelerator, choose_kernels
from unipeft_run.training.progress import Progress

SMOOTHING, MAX_NORM, RANK = 0.1, 0.1, 102
Batch = Mapping[str, Tensor]


class Contender(ABC):
    """A model with an optimiser. `update` makes one update from micro-batches."""

    def __init__(self, shape: str, precision: str, device: str, batch_size: int) -> None:
        self.device, self.precision, self.batch_size = torch.device(device), precision, batch_size
        self.model = self.adapt(build_model(shape, torch.float32, device)).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.prepare()

    def choose_kernels(self) -> None:
        """Use torch's own choice of attention kernels."""
        torch.backends.cuda.enable_cudnn_sdp(True)

    @abstractmethod
    def adapt(self, model: Any) -> Any:
        """Attach the trained modules to `model`; return it."""

    @abstractmethod
    def prepare(self) -> None:
        """Build the optimiser."""

    @abstractmethod
    def update(self, batches: list[Batch]) -> None:
        """Make one update."""

    @abstractmethod
    def batches(self, stream: Dataset) -> Iterator[Batch]:
        """Yield the batches of one pass over `stream`, of similar lengths."""


class Unipeft(Contender):
    """The trainer's own step and batches. `graphs`: see `compute.graphs`."""

    method = ""
    graphs: bool | None = None

    def choose_kernels(self) -> None:
        choose_kernels()

    def adapt(self, model: Any) -> Any:
        config = resolve(compose(["task=xsum", f"method={self.method}"]))
        attach(model, build_slots(config), config.unfreeze)
        return model

    def prepare(self) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = build_accelerator(self.precision)  # type: ignore[arg-type]
        autocast = torch.bfloat16 if self.precision == "bf16" else None
        build = partial(
            GradientAccumulator,
            self.accelerator,
            self.model,
            SequenceLoss(SMOOTHING),
            weighting="equal",
            max_grad_norm=MAX_NORM,
            parallel="ddp",
            autocast=autocast,
        )
        config = self.model.config
        grid = ShapeGrid(config.pad_token_id, self.batch_size, config.max_position_embeddings)
        self.options = ComputeOptions(ComputeConfig(graphs=self.graphs), grid=grid)
        self.build = partial(build, grid=grid)
        self.accumulator: GradientAccumulator | None = None
        optimizer, _ = build_optimizer_and_schedule(
            self.model, 1000, name="adamw_official", lr=5e-5, weight_decay=0.01
        )
        self.optimizer = self.accelerator.prepare(optimizer)

    def update(self, batches: list[Batch]) -> None:
        if self.accumulator is None:
            self.accumulator = self.build(accumulation=len(batches))
            self.accumulator.choose(self.options, None)
        self.accumulator.accumulate([MicroBatch(batch) for batch in batches])
        self.optimizer.step()
        self.accumulator.clear()

    def batches(self, stream: Dataset) -> Iterator[Batch]:
        collator = Collator(self.model.config.pad_token_id, self.model.config.eos_token_id)
        loader = train_loader(stream, collator, seed=0, batch_size=self.batch_size)
        drawn = MicroBatches(loader, Progress(), self.device)
        for _ in range(len(loader)):
            yield drawn.draw(1)[0].batch


class Mam(Unipeft):
    method = "mam"


class MamWithoutGraphs(Mam):
    graphs = False


class LoraFfn(Unipeft):
    method = "lora_ffn"


class PlainLoop(Contender):
    """A loop as users of PEFT write it: length-grouped batches, autocast, fused AdamW."""

    def prepare(self) -> None:
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-5, fused=True)

    def update(self, batches: list[Batch]) -> None:
        for batch in batches:
            inputs = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            with self._autocast():
                logits = self.model(**inputs).logits
            loss = F.cross_entropy(
                logits.float().flatten(0, 1),
                inputs["labels"].flatten(),
                ignore_index=IGNORED,
                label_smoothing=SMOOTHING,
            )
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()  # a loop shows its loss

    def batches(self, stream: Dataset) -> Iterator[Batch]:
        lengths = [len(ids) for ids in stream["input_ids"]]
        sampler = LengthGroupedSampler(
            self.batch_size, lengths=lengths, generator=torch.Generator().manual_seed(0)
        )
        collate = DataCollatorForSeq2Seq(_Padding(self.model.config.pad_token_id), padding=True)
        loader = DataLoader(
            stream,  # type: ignore[arg-type]
            self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
        )
        yield from (dict(batch) for batch in loader)

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


class PeftLora(PlainLoop):
    """LoRA on both feed-forward matrices with PEFT, in the paper's size."""

    def adapt(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=RANK,
            lora_alpha=4 * RANK,
            lora_dropout=0.1,
            target_modules=["fc1", "fc2"],
        )
        return get_peft_model(model, config)


class Frozen(PlainLoop):
    """The frozen backbone: only the first LayerNorms train, so backward runs through everything."""

    def adapt(self, model: Any) -> Any:
        model.requires_grad_(False)
        for stack in (model.model.encoder, model.model.decoder):
            stack.layernorm_embedding.requires_grad_(True)
        return model


class _Padding:
    """The part of a tokenizer that `DataCollatorForSeq2Seq` uses."""

    padding_side = "right"

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def pad(self, rows: list[dict[str, Any]], **options: Any) -> dict[str, Tensor]:
        del options
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[i, : len(row["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask}


CONTENDERS: dict[str, type[Contender]] = {
    "PEFT LoRA FFN": PeftLora,
    "frozen backbone": Frozen,
    "unipeft LoRA FFN": LoraFfn,
    "unipeft MAM": Mam,
    "without graphs": MamWithoutGraphs,  # on a GPU
}
