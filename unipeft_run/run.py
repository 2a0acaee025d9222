"""The straight path: a configuration becomes a trained, evaluated, written-down model."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra.utils
import torch
import transformers
from accelerate.utils import set_seed
from omegaconf import DictConfig, OmegaConf
from torch import nn

from unipeft_run import config as configuration
from unipeft_run.attach import Slot, attach
from unipeft_run.backbones.load import load_backbone, locate
from unipeft_run.backbones.sites import TABLES
from unipeft_run.batching import Collator, train_loader
from unipeft_run.config.schema import SLOTS
from unipeft_run.decoding import Decoding
from unipeft_run.delta_file import load_delta, parameter_table, save_delta
from unipeft_run.errors import UserError
from unipeft_run.evaluator import Evaluator
from unipeft_run.losses import ClassificationLoss, SequenceLoss
from unipeft_run.optim import build
from unipeft_run.run_folder import RunFolder
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.jsonl import Jsonl
from unipeft_run.tracking.wandb import WandB
from unipeft_run.trainer import Diverged, Trainer

FIT = (
    "max_steps",
    "epochs",
    "accumulation",
    "max_grad_norm",
    "eval_every",
    "eval_limit",
    "log_every",
    "checkpoint_every",
    "early_stopping",
)  # of the recipe: what the trainer takes


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train, select, test and write down one configuration; a finished one is only read.

    Returns the run's metrics with `state`: `done`, or `skipped` where it was there already.
    Raises UserError for what the user can mend.
    """
    plain = configuration.resolve(cfg)
    path = configuration.run_folder(cfg)
    if not plain["force"] and (path / "metrics.json").is_file():
        print(f"done already: {path} (force=true starts afresh)")
        return {**RunFolder(path).read_json("metrics.json"), "state": "skipped"}
    parts = _Parts(plain, path)
    folder = RunFolder(path)
    if plain["force"]:
        folder.clear()
    try:
        return parts.train(folder)
    except Diverged:
        raise
    except Exception as problem:
        folder.mark("failed", error=f"{type(problem).__name__}: {problem}")
        raise


def evaluate(folder: Path, split: str = "test", allow: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a finished run on `split`, from its stored delta alone.

    `allow`: prefixes of classes outside this package that the run's configuration may name.
    Raises UserError for a folder that holds no finished run, and for an unknown split.
    """
    cfg = configuration.load(folder, allow)
    parts = _Parts({**cfg, **folded(cfg)}, folder)
    if split not in parts.encoded:
        raise UserError(f"no split {split!r}: have {', '.join(parts.encoded)}")
    load_delta(parts.model, folder)
    return parts.evaluator(parts.model, split).metrics


def folded(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The slots under which the deltas hold just what is stored."""
    slots = {}
    for name in SLOTS:
        if cfg[name] is not None:
            form = cfg[name]["form"]
            changes = hydra.utils.get_class(form["_target_"]).folded
            slots[name] = {**cfg[name], "form": {**form, **changes}}
    return slots


class _Parts:
    """Task, backbone, deltas and evaluator of one resolved configuration."""

    def __init__(self, cfg: Mapping[str, Any], path: Path) -> None:
        self.cfg, self.path, self.console = cfg, path, Console(**cfg["tracking"]["console"])
        set_seed(cfg["seed"])
        source = locate(**{key: cfg["backbone"][key] for key in ("name", "hub", "path")})
        self.task = hydra.utils.instantiate(cfg["task"], limit=cfg["limit"])
        self.splits = self.task.load()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        self.encoded = self.task.encode(self.splits, self.tokenizer)
        table = TABLES[cfg["backbone"]["family"]]
        self.model = load_backbone(
            source,
            family=table.family,
            weights=cfg["backbone"]["weights"],
            num_labels=self.task.num_labels,
            config=cfg["backbone"]["config"],
        )
        self.backbone_size = sum(p.numel() for p in self.model.parameters())
        self.slots = {name: _slot(cfg[name]) for name in SLOTS}
        attach(self.model, self.slots, cfg["unfreeze"])
        settings: Any = self.model.config
        start: Any = (
            settings.decoder_start_token_id if table.decoder_start == "config" else "rotate"
        )
        self.collator = Collator(
            self.tokenizer.pad_token_id, start if table.decoder_start else None
        )
        smoothing = cfg["recipe"]["label_smoothing"]
        seq2seq = self.task.kind == "seq2seq"
        self.loss_fn = SequenceLoss(smoothing) if seq2seq else ClassificationLoss()
        evaluation = cfg["evaluation"]
        self.evaluator = Evaluator(
            self.task,
            self.splits,
            self.encoded,
            self.tokenizer,
            collator=self.collator,
            loss_fn=self.loss_fn,
            batch_size=evaluation["batch_size"],
            decoding=Decoding(**evaluation["decoding"]) if evaluation["decoding"] else None,
            references=evaluation["references"],
            progress=self.console.progress,
        )

    def train(self, folder: RunFolder) -> dict[str, Any]:
        cfg, began = self.cfg, time.time()
        table = parameter_table(self.model, self.backbone_size)
        folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(cfg))))
        folder.write_json("parameters.json", table)
        self.console.say(_headline(cfg, table))
        run_id = folder.path.name
        wandb = WandB(folder.path, run_id, job_type=cfg["method"], **cfg["tracking"]["wandb"])
        trackers: list[Any] = [Jsonl(folder.path / "train.jsonl"), self.console, wandb]
        for tracker in trackers:
            tracker.start(cfg)
        summary: dict[str, Any] = {}
        state = "failed"
        try:
            fitted = self._trainer(folder, trackers).fit()
            test = self.evaluator(self.model, "test")
            trivial = self.task.score(
                self.task.baseline(self.splits), self.task.references(self.splits["test"])
            )
            save_delta(self.model, folder.path, _delta_recipe(cfg))
            folder.write_predictions("test", test.rows)
            summary = {
                **{key: cfg[key] for key in ("method", "seed", "scale")},
                "task": self.task.name,
                "backbone": cfg["backbone"]["name"],
                "run_id": run_id,
                "primary": f"test/{self.task.primary}",
                **_named("test", test.metrics),
                **_named("validation", fitted.best),
                **_named("trivial", trivial.metrics),
                "trivial/name": self.task.baseline_name,
                "signatures": test.signatures,
                **fitted.metrics,
                **_named("parameters", {k: v for k, v in table.items() if k != "sites"}),
                "wall_seconds": time.time() - began,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            }
            folder.write_json("metrics.json", summary)
            folder.mark("done", step=fitted.step)
            state = "done"
        finally:
            for tracker in trackers:
                tracker.finish(summary, state)
        print(_closing(summary, folder.path))
        return {**summary, "state": state}

    def _trainer(self, folder: RunFolder, trackers: list[Any]) -> Trainer:
        recipe, name = self.cfg["recipe"], self.task.selection_rule[0]
        batch = {key: recipe[key] for key in ("batch_size", "max_tokens")}
        warmup = {key: recipe[key] for key in ("warmup_steps", "warmup_ratio")}
        loader = train_loader(self.encoded["train"], self.collator, seed=self.cfg["seed"], **batch)

        def validate(model: nn.Module, limit: int | None) -> Mapping[str, float]:
            generate = name != "loss"
            return self.evaluator(model, "validation", limit, generate=generate).metrics

        return Trainer(
            self.model,
            loader,
            self.loss_fn,
            optim=partial(build, **self.cfg["optim"], **warmup),
            folder=folder,
            trackers=trackers,
            evaluate=validate,
            selection=self.task.selection_rule,
            precision=self.cfg["precision"],
            **{key: recipe[key] for key in FIT},
        )


def _slot(cfg: Mapping[str, Any] | None) -> Slot | None:
    if cfg is None or cfg.get("form") is None:
        return None
    form, composition = (hydra.utils.instantiate(cfg[key]) for key in ("form", "composition"))
    return Slot(
        form=form,
        composition=composition,
        insertion=cfg["insertion"],
        representation=cfg["representation"],
    )


def _delta_recipe(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What `delta.json` says: the backbone, what was unfrozen, and the folded slots."""
    return {"backbone": cfg["backbone"], "unfreeze": cfg["unfreeze"], "slots": folded(cfg)}


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{key}": value for key, value in values.items()}


def _headline(cfg: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """What was composed, in one compact block."""
    lines = [f"{cfg['task']['name']} | {cfg['backbone']['name']} | {cfg['method']}"]
    for row in table["sites"]:
        where = f"{row['slot']:>8}  {row['representation']:<14} {row['sites']:>4} sites"
        lines.append(f"{where}  trained {row['trained']:>11,}  stored {row['stored']:>11,}")
    share = f"{table['stored_percent']:.2f} % of {table['backbone']:,}"
    lines.append(f"   total  trained {table['trained']:,}  stored {table['stored']:,} ({share})")
    return "\n".join(lines)


def _closing(summary: Mapping[str, Any], path: Path) -> str:
    """The printed table of a finished run."""
    primary = summary["primary"].removeprefix("test/")
    rows = {
        f"test {primary}": f"{summary[f'test/{primary}']:.2f}",
        f"trivial baseline ({summary['trivial/name']})": f"{summary[f'trivial/{primary}']:.2f}",
        "test loss": f"{summary['test/loss']:.4f}",
        "trained parameters": f"{summary['parameters/trained']:,}",
        "stored parameters": f"{summary['parameters/stored']:,}"
        f" ({summary['parameters/stored_percent']:.2f} % of the backbone)",
        "tokens/s": f"{summary.get('train/tokens_per_second', 0):,.0f}",
        "run folder": str(path),
    }
    return "\n".join(f"{name:<48} {value}" for name, value in rows.items())
