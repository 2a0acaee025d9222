"""Assemble a run: build the task, model, trainer and evaluator of one configuration."""

import logging
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

from unipeft_run.backbones.load import check_lengths, check_tokens
from unipeft_run.config import PlannedRun
from unipeft_run.config.schema import RunConfig
from unipeft_run.data.batching import measure_padding
from unipeft_run.data.encoding import find_largest_id
from unipeft_run.deltas.build import backbone_size, build_model, run_recipe
from unipeft_run.deltas.delta_file import save_delta, tabulate_parameters
from unipeft_run.deltas.positions import count_occupied
from unipeft_run.errors import UserError
from unipeft_run.evaluation.evaluator import Evaluator
from unipeft_run.inputs import Inputs
from unipeft_run.runs.folder import RunFolder
from unipeft_run.task_types.registry import task_type_of
from unipeft_run.tracking import Tracker
from unipeft_run.tracking.build import build_trackers
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.summary import format_headline, format_result, prefix_keys
from unipeft_run.training.cadence import describe_rounding
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import unshard
from unipeft_run.training.divergence import Diverged, check_finite
from unipeft_run.training.optim import build_optimizer_and_schedule
from unipeft_run.training.precision import autocast_dtype, resolve_precision
from unipeft_run.training.progress import Clock, reset_peak_memory
from unipeft_run.training.trainer import FitResult, Trainer
from unipeft_run.tuners.library import library_version
from unipeft_run.tuners.training import penalised_loss, update_hook

log = logging.getLogger(__name__)


class PreparedRun:
    """The task, model and evaluator of one configuration, ready to train or evaluate."""

    def __init__(self, config: RunConfig, inputs: Inputs, *, inference: bool = False) -> None:
        reset_peak_memory()
        self.config, self.task, self.splits = config, inputs.task, inputs.splits
        self.type = task_type_of(self.task)
        output = None if processes.is_main() else rich.console.Console(quiet=True)
        self.console = Console(every=config.tracking.console.every, console=output)
        self.tokenizer = self.type.load_tokenizer(inputs.backbone)
        warning = self.type.compare_preparation(self.task, inputs.backbone)
        if warning and processes.is_main():
            log.warning("%s", warning)
        with PartialState().main_process_first():
            self.encoded = self.task.encode(self.splits, self.tokenizer, self.console.progress)
        self.model: Any = build_model(config, inputs.backbone, inference=inference)
        if self.tokenizer is not None:
            largest = max(map(find_largest_id, self.encoded.values()), default=0)
            check_tokens(self.tokenizer, self.model.config, largest)
        check_lengths(self._lengths(), self.model.config, count_occupied(self.model))
        self.collator = self.type.build_collator(self.task, self.tokenizer, self.model)
        self.loss_fn = self.type.build_loss(config.recipe.label_smoothing)
        self.evaluator = self._evaluator()

    def _evaluator(self) -> Evaluator:
        evaluation = self.config.evaluation
        return Evaluator(
            self.task,
            self.splits,
            self.encoded,
            self.tokenizer,
            collator=self.collator,
            loss_fn=self.loss_fn,
            batch_size=evaluation.batch_size,
            decoding=evaluation.decoding,
            references=evaluation.references,
            autocast=autocast_dtype(self.config.precision),
            graphs=self.config.compute.graphs,
            progress=self.console.progress,
        )

    def train(self, planned: PlannedRun, folder: RunFolder) -> dict[str, Any]:
        """Train, test and write the results; return the content of metrics.json."""
        config, clock = self.config, Clock()
        self.recipe = run_recipe(config, self.model)
        table = tabulate_parameters(self.model, backbone_size(self.model))
        folder.write_json("parameters.json", table)
        loader = self._loader()
        padding = 100 * measure_padding(loader)
        self.console.say(format_headline(config, table, padding))
        recipe = config.recipe
        rounding = describe_rounding(
            recipe.max_steps, recipe.epochs, len(loader), recipe.accumulation
        )
        if rounding:
            self.console.say(rounding)
        trackers = self._trackers(folder)
        for tracker in trackers:
            tracker.start(config.plain())
        if processes.rank() > 0:
            set_seed(config.seed + processes.rank())  # different dropout in each process
        summary: dict[str, Any] = {}
        state = "failed"
        try:
            fitted = self._trainer(loader, folder, trackers, clock).fit()
            fitted.metrics["train/padding_percent"] = padding
            summary = self._test(planned, folder, fitted, table)
            summary["wall_seconds"] = clock.seconds()
            folder.write_json("metrics.json", summary)
            folder.mark("done", step=fitted.step)
            state = "done"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except Diverged:
            state = "diverged"
            raise
        finally:
            for tracker in trackers:
                tracker.finish(summary, state)
        if folder.writes:
            print(format_result(summary, folder.path))
        return summary

    def _trackers(self, folder: RunFolder) -> list[Tracker]:
        if not folder.writes:
            return []
        return build_trackers(self.config.tracking, folder, self.console)

    def _test(
        self, planned: PlannedRun, folder: RunFolder, fitted: FitResult, table: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Evaluate on the test split; store the delta and the predictions."""
        config, task = self.config, self.task
        test = self.evaluator(self.model, "test")
        check_finite("test loss", test.metrics["loss"], fitted.step)
        unshard(self.model)
        if folder.writes:
            save_delta(self.model, folder.path, self.recipe, folder.check)
        for split, rows in {"test": test.rows, **test.companion_rows}.items():
            folder.write_predictions(split, rows)
        return {
            "method": config.method,
            "seed": config.seed,
            "scale": config.scale,
            "task": task.name,
            "backbone": config.backbone.name,
            "run_id": planned.run_id,
            "primary": f"test/{task.primary}",
            **prefix_keys("test", test.metrics),
            **prefix_keys("validation", fitted.best),
            **self._score_baseline(),
            "signatures": test.signatures,
            **fitted.metrics,
            **prefix_keys("compute", fitted.compute),
            **prefix_keys("parameters", {k: v for k, v in table.items() if k != "sites"}),
            **({"peft": library_version()} if config.peft else {}),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _score_baseline(self) -> dict[str, Any]:
        """Score the task's trivial baseline; {} with a warning if its texts cannot be scored."""
        task = self.task
        try:
            scores = task.score(task.baseline(self.splits), task.references(self.splits["test"]))
        except UserError as problem:
            log.warning("the trivial baseline has no score: %s", problem)
            return {}
        return {**prefix_keys("trivial", scores.metrics), "trivial/name": task.baseline_name}

    def _loader(self) -> DataLoader[dict[str, Tensor]]:
        return self.type.build_loader(
            self.encoded["train"],
            self.collator,
            seed=self.config.seed,
            batch_size=self.config.recipe.batch_size,
            max_tokens=self.config.recipe.max_tokens,
        )

    def _trainer(
        self, loader: DataLoader[Any], folder: RunFolder, trackers: list[Tracker], clock: Clock
    ) -> Trainer:
        recipe, name = self.config.recipe, self.task.selection_rule[0]

        def validate(model: nn.Module, limit: int | None) -> Mapping[str, float]:
            generate = name != "loss"
            return self.evaluator(model, "validation", limit, generate=generate).metrics

        return Trainer(
            self.model,
            loader,
            penalised_loss(self.model, self.loss_fn),
            optim=partial(
                build_optimizer_and_schedule,
                **self.config.optim.model_dump(),
                warmup_steps=recipe.warmup_steps,
                warmup_ratio=recipe.warmup_ratio,
                fused=resolve_precision(self.config.precision) != "fp16",
            ),
            build_hook=partial(update_hook, self.model),
            folder=folder,
            trackers=trackers,
            evaluate=validate,
            selection=self.task.selection_rule,
            precision=self.config.precision,
            compute=self._compute_options(),
            parallel=self.config.parallel,
            clock=clock,
            max_steps=recipe.max_steps,
            epochs=recipe.epochs,
            accumulation=recipe.accumulation,
            accumulation_weighting=recipe.accumulation_weighting,
            max_grad_norm=recipe.max_grad_norm,
            eval_every=recipe.eval_every,
            eval_limit=recipe.eval_limit,
            log_every=recipe.log_every,
            checkpoint_every=recipe.checkpoint_every,
            early_stopping=recipe.early_stopping,
        )

    def _compute_options(self) -> ComputeOptions:
        batch_size = self.config.recipe.batch_size
        grid = self.type.build_grid(self.collator, self.model, batch_size)
        return ComputeOptions(self.config.compute, bool(self.config.deterministic), grid)

    def _lengths(self) -> Iterator[tuple[str, int]]:
        """Yield each length key with the longest input or output that it allows."""
        for name, split in self.encoded.items():
            yield from self.type.lengths(name, split)
        yield from self.type.output_lengths(self.config.evaluation.decoding, self.encoded)
