"""Task, backbone, deltas, loop and evaluator of one resolved configuration."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import rich.console
import torch
import transformers
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unipeft_run.backbones.base import Backbone
from unipeft_run.backbones.load import check_lengths, load_backbone, load_tokenizer
from unipeft_run.backbones.sites import TABLES
from unipeft_run.config.schema import SLOTS
from unipeft_run.data.batching import Collator, measure_padding, train_loader
from unipeft_run.data.encoding import lengths
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.delta_file import parameter_table, save_delta
from unipeft_run.deltas.slots import built as built
from unipeft_run.deltas.slots import folded as folded
from unipeft_run.evaluation.decoding import Decoding
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.inputs import Inputs
from unipeft_run.runs.folder import RunFolder
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.build import trackers as build_trackers
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.summary import closing, headline, named
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import unshard
from unipeft_run.training.divergence import check_finite
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss
from unipeft_run.training.optim import build_optimizer_and_schedule
from unipeft_run.training.precision import autocast_dtype
from unipeft_run.training.progress import Clock, reset_peak_memory
from unipeft_run.training.trainer import FitResult, Trainer

FIT = (
    "max_steps",
    "epochs",
    "accumulation",
    "accumulation_weighting",
    "max_grad_norm",
    "eval_every",
    "eval_limit",
    "log_every",
    "checkpoint_every",
    "early_stopping",
)  # of the recipe: what the trainer takes


class Experiment:
    """What a configuration says, put together; `train` runs it."""

    def __init__(self, cfg: Mapping[str, Any], inputs: Inputs) -> None:
        reset_peak_memory()
        self.cfg = cfg
        shown = None if processes.is_main() else rich.console.Console(quiet=True)
        self.console = Console(**cfg["tracking"]["console"], console=shown)
        self.task, self.splits = inputs.task, inputs.splits
        set_seed(cfg["seed"])
        self.tokenizer = load_tokenizer(inputs.backbone)
        with PartialState().main_process_first():
            self.encoded = self.task.encode(self.splits, self.tokenizer)
        table = TABLES[cfg["backbone"]["family"]]
        self.model = load_backbone(
            inputs.backbone,
            family=table.family,
            weights=cfg["backbone"]["weights"],
            num_labels=self.task.num_labels,
            config=cfg["backbone"]["config"],
        )
        check_lengths(self._lengths(), self.model.config)
        self.backbone_size = sum(p.numel() for p in self.model.parameters())
        self.unfreeze = [*cfg["unfreeze"], *(table.head if cfg["head"] == "trained" else ())]
        attach(self.model, {name: built(cfg[name]) for name in SLOTS}, self.unfreeze)
        self.collator = Collator(self.tokenizer.pad_token_id, self._decoder_start(table))
        smoothing = cfg["recipe"]["label_smoothing"]
        seq2seq = self.task.kind == "seq2seq"
        self.loss_fn = (SequenceLoss if seq2seq else ClassificationLoss)(smoothing)
        self.evaluator = self._evaluator()

    def _decoder_start(self, table: Backbone) -> Any:
        config: Any = self.model.config
        fixed = table.decoder_start == "config"
        return config.decoder_start_token_id if fixed else table.decoder_start

    def _evaluator(self) -> Evaluator:
        evaluation = self.cfg["evaluation"]
        return Evaluator(
            self.task,
            self.splits,
            self.encoded,
            self.tokenizer,
            collator=self.collator,
            loss_fn=self.loss_fn,
            batch_size=evaluation["batch_size"],
            decoding=Decoding(**evaluation["decoding"]) if evaluation["decoding"] else None,
            references=evaluation["references"],
            autocast=autocast_dtype(self.cfg["precision"]),
            progress=self.console.progress,
        )

    def train(self, folder: RunFolder) -> dict[str, Any]:
        """Train, test and write down; returns what metrics.json holds."""
        cfg, clock = self.cfg, Clock()
        table = parameter_table(self.model, self.backbone_size)
        folder.write_json("parameters.json", table)
        loader = self._loader()
        padding = 100 * measure_padding(loader)
        self.console.say(headline(cfg, table, padding))
        trackers = build_trackers(cfg, folder.path, self.console) if folder.writes else []
        for tracker in trackers:
            tracker.start(cfg)
        if processes.rank() > 0:
            set_seed(cfg["seed"] + processes.rank())  # another dropout in each process
        summary: dict[str, Any] = {}
        state = "failed"
        try:
            fitted = self._trainer(loader, folder, trackers, clock).fit()
            fitted.metrics["train/padding_percent"] = padding
            summary = self._test(folder, fitted, table)
            summary["wall_seconds"] = clock.seconds()
            folder.write_json("metrics.json", summary)
            folder.mark("done", step=fitted.step)
            state = "done"
        finally:
            for tracker in trackers:
                tracker.finish(summary, state)
        if folder.writes:
            print(closing(summary, folder.path))
        return summary

    def _test(
        self, folder: RunFolder, fitted: FitResult, table: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Evaluate on the test split, and store the delta and its predictions."""
        cfg, task = self.cfg, self.task
        test = self.evaluator(self.model, "test")
        check_finite("test loss", test.metrics["loss"], fitted.step)
        trivial = task.score(task.baseline(self.splits), task.references(self.splits["test"]))
        unshard(self.model)
        if folder.writes:
            save_delta(self.model, folder.path, self._delta_recipe())
        for split, rows in {"test": test.rows, **test.beside}.items():
            folder.write_predictions(split, rows)
        return {
            **{key: cfg[key] for key in ("method", "seed", "scale")},
            "task": task.name,
            "backbone": cfg["backbone"]["name"],
            "run_id": folder.path.name,
            "primary": f"test/{task.primary}",
            **named("test", test.metrics),
            **named("validation", fitted.best),
            **named("trivial", trivial.metrics),
            "trivial/name": task.baseline_name,
            "signatures": test.signatures,
            **fitted.metrics,
            **named("parameters", {k: v for k, v in table.items() if k != "sites"}),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _delta_recipe(self) -> dict[str, Any]:
        """What `delta.json` says: the backbone, what was unfrozen, and the folded slots."""
        backbone = self.cfg["backbone"]
        return {"backbone": backbone, "unfreeze": self.unfreeze, "slots": folded(self.cfg)}

    def _loader(self) -> DataLoader[dict[str, Tensor]]:
        batch = {key: self.cfg["recipe"][key] for key in ("batch_size", "max_tokens")}
        return train_loader(self.encoded["train"], self.collator, seed=self.cfg["seed"], **batch)

    def _trainer(
        self, loader: DataLoader[Any], folder: RunFolder, trackers: list[Tracker], clock: Clock
    ) -> Trainer:
        recipe, name = self.cfg["recipe"], self.task.selection_rule[0]
        warmup = {key: recipe[key] for key in ("warmup_steps", "warmup_ratio")}

        def validate(model: nn.Module, limit: int | None) -> Mapping[str, float]:
            generate = name != "loss"
            return self.evaluator(model, "validation", limit, generate=generate).metrics

        return Trainer(
            self.model,
            loader,
            self.loss_fn,
            optim=partial(build_optimizer_and_schedule, **self.cfg["optim"], **warmup),
            folder=folder,
            trackers=trackers,
            evaluate=validate,
            selection=self.task.selection_rule,
            precision=self.cfg["precision"],
            parallel=self.cfg["parallel"],
            clock=clock,
            **{key: recipe[key] for key in FIT},
        )

    def _lengths(self) -> Iterator[tuple[str, int]]:
        """The most tokens that a key of the configuration lets in, or out."""
        for name, split in self.encoded.items():
            yield "task.max_source_length", int(lengths(split, "input_ids").max())
            if self.task.kind == "seq2seq":
                cut = "max" if name == "train" else "eval"
                yield f"task.{cut}_target_length", int(lengths(split, "labels").max())
        if decoding := self.cfg["evaluation"]["decoding"]:
            yield "evaluation.decoding.max_length", decoding["max_length"]
