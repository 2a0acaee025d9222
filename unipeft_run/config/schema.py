"""The schema of a run's configuration: every key with its type, bounds, choices and help text.

The YAML groups of conf/ compose to this, and `resolve` validates them against it. Everything below
the command line takes these sections instead of dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from unipeft_run.config.types import (
    Count,
    CountOrZero,
    Fraction,
    MethodName,
    Name,
    Names,
    NotNegative,
    Positive,
    Section,
    StringOrList,
)
from unipeft_run.errors import UserError

SLOTS = ("attn", "ffn", "input", "matrix")
AXES = ("form", "insertion", "representation", "composition")
Precision = Literal["fp32", "bf16", "fp16", "auto"]
OptimizerName = Literal["adamw", "adamw_official", "sgd"]
ScheduleName = Literal["polynomial", "linear", "cosine", "constant"]
Rules = Annotated[Literal["2021", "transformers"], BeforeValidator(str)]


def key(description: str, default: Any = ..., **bounds: Any) -> Any:
    """Declare a key with its help text; it is required unless it has a default."""
    return Field(default, description=description, **bounds)


class PartConfig(Section):
    """A form or composition: a class and the keyword arguments of its constructor."""

    model_config = ConfigDict(extra="allow")

    target: str = key("the class, as a dotted name", alias="_target_")
    partial: bool = key(
        "must be true: the site is passed when the deltas are built", True, alias="_partial_"
    )

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the constructor."""
        return dict(self.model_extra or {})

    @property
    def name(self) -> str:
        """Name of the class, without its module."""
        return self.target.rpartition(".")[2]


class RepresentationConfig(Section):
    sites: Names = key("the modified representations, as in [attn.heads]")
    stacks: Names = key("which stacks: encoder, decoder")
    attentions: Names = key("which attentions: self, cross")
    layers: Literal["all"] | Annotated[tuple[CountOrZero, ...], Field(strict=False)] = key(
        "all, or a list of layer numbers from 0"
    )


class SlotConfig(Section):
    """h <- composition(h, form(insertion(x, h))) at every site of the representation."""

    form: PartConfig = key("f, the functional form")
    insertion: Name = key("which tensor f reads: parallel x, sequential h")
    representation: RepresentationConfig = key("h, the modified representation")
    composition: PartConfig = key("how the change is merged into h")
    bottleneck: Count | None = key("r of an adapter or LoRA, l of a prefix or prompt", None)
    scale: Positive | None = key("s of a scaled composition", None)
    mlp_width: Count | None = key("width of the prefix MLP; null: none", None)


class TunerConfig(Section):
    """A method of the PEFT library, which takes the place of the slots."""

    type: str = key("the method, as the library names it: LORA, OFT, ...")
    config: Mapping[str, Any] = key("fields of the library's configuration of the method", {})


class HubConfig(Section):
    path: str = key("the data set's id on the model hub")
    name: str | None = key("configuration of the data set on the hub", None)
    revision: str | None = key("revision of the data set on the hub", None)


class TaskConfig(Section):
    """A task: the keys that all tasks have, and those of its class."""

    model_config = ConfigDict(extra="allow")

    target: str = key("the class, as a dotted name", alias="_target_")
    name: Name = key("the task's name in folders and tables")
    path: str | None = key("a folder of local data: {train,validation,test}.jsonl", None)
    data: str | None = key("own data: a file, a folder or a hub name", None)
    hub: HubConfig | None = key("the data set on the model hub", None)
    mini: str | None = key(
        "name of the miniature data that replaces the task's data at scale=mini", None
    )

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the task's class."""
        hub = self.hub.model_dump() if self.hub else None
        common = {"name": self.name, "path": self.path, "hub": hub, "mini": self.mini}
        own = {"data": self.data} if self.data is not None else {}
        return {**common, **own, **(self.model_extra or {})}


class BackboneConfig(Section):
    name: Name = key("the backbone's name in tables")
    family: Name = key("the backbone's family, which determines its sites (docs/backbones.md)")
    hub: str | None = key("the backbone's id on the model hub", None)
    path: str | None = key("a local Hugging Face model folder", None)
    weights: Literal["pretrained", "random"] = key("random: initialised from config.json alone")
    config: Mapping[str, Any] = key("fields of the transformers config to override", {})


class RecipeConfig(Section):
    max_steps: Count | None = key("updates to train for", None)
    epochs: Annotated[float, Field(gt=0, le=10**6)] | None = key(
        "passes over the data, each rounded down to whole updates, if max_steps is null", None
    )
    batch_size: Count | None = key("examples in a micro-batch", None)
    max_tokens: Count | None = key("padded tokens in a micro-batch, instead of batch_size", None)
    accumulation: Count = key("micro-batches per update")
    accumulation_weighting: Literal["equal", "targets"] = key(
        "weight micro-batches equally, as the official code does, or by their target tokens",
        "equal",
    )
    max_grad_norm: Positive | None = key("clip gradients to this norm; null: no clipping", None)
    label_smoothing: Fraction = key("label smoothing of the loss")
    warmup_steps: CountOrZero = key("updates of linear warm-up")
    warmup_ratio: Fraction = key("linear warm-up as a fraction of all updates")
    eval_every: Count | None = key("updates between evaluations; null: once per epoch", None)
    eval_limit: Count | None = key("validation examples to evaluate while training", None)
    log_every: Count = key("updates between records in train.jsonl")
    checkpoint_every: Count | None = key(
        "updates between checkpoints; null: at every evaluation", None
    )
    early_stopping: Count | None = key("evaluations without a new best before stopping", None)


class OptimConfig(Section):
    name: OptimizerName = key("the optimiser")
    lr: Positive = key("the peak learning rate")
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = key("Adam's decay rates")
    eps: Positive = key("Adam's epsilon")
    momentum: Fraction | None = key("momentum of SGD", None)
    weight_decay: NotNegative = key("weight decay, not applied to biases and normalisation layers")
    schedule: ScheduleName = key("learning-rate schedule after the warm-up")
    lr_end: NotNegative = key("final learning rate of the polynomial schedule")


class DecodingConfig(Section):
    """Beam search, or greedy search with one beam."""

    num_beams: Count = key("beams; 1 is greedy search")
    max_length: Annotated[int, Field(ge=2, le=10**6)] | None = key(
        "maximum length in tokens, including the start token or, of a decoder-only model, the "
        "padded prompt",
        None,
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = key(
        "maximum number of generated tokens; takes precedence over max_length", None
    )
    min_length: CountOrZero = key(
        "minimum length before the end token; with max_new_tokens, causal tasks count new tokens", 0
    )
    no_repeat_ngram_size: CountOrZero = key("n-grams of this size never recur; 0: no limit", 0)
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = key(
        "scores are divided by length ** length_penalty", 1.0
    )
    early_stopping: bool = key("stop once num_beams hypotheses are finished", False)
    forced_bos: bool = key("force <s> as the first token", False)
    forced_eos: bool = key("force </s> as the last token at max_length", True)
    rules: Rules = key(
        "2021: beam search as in the paper's code; transformers: as in transformers 5 (set by "
        "causal tasks)",
        "2021",
    )

    @property
    def length_key(self) -> str:
        """The key that limits the length."""
        return "max_length" if self.max_new_tokens is None else "max_new_tokens"

    def find_longest(self, prompt: int = 1) -> int:
        """Return the maximum length, including `prompt` given tokens. Raises UserError.

        An encoder-decoder model is given one token, the start token.
        """
        if self.max_new_tokens is not None:
            return prompt + self.max_new_tokens
        if self.max_length is None:
            raise UserError("decoding.max_length has no value; give it or decoding.max_new_tokens")
        return self.max_length


class EvaluationConfig(Section):
    batch_size: Count = key("examples in the batch of the longest sources; other batches hold more")
    references: Literal["raw", "reference_code"] = key(
        "raw: score against the original texts; reference_code: against truncated ones, as the "
        "paper's code does"
    )
    decoding: DecodingConfig | None = key("how text is generated; null: no text is generated", None)


class ConsoleConfig(Section):
    every: Count = key("seconds between progress lines if stderr is not a terminal", 10)


class WandbConfig(Section):
    mode: Literal["auto", "online", "offline", "disabled"] = key(
        "auto: online if there is an API key, else offline", "auto"
    )
    project: str = key("the W&B project", "unipeft")
    entity: str | None = key("the W&B entity", None)
    group: str | None = key("W&B group of the run; null: the task and its scale", None)
    job_type: str | None = key("W&B job type of the run; null: the method", None)
    tags: StringOrList = key("tags in addition to those of the four axes", ())
    name: str | None = key("the run's name on W&B; null: task-method-run_id", None)


class TrackingConfig(Section):
    console: ConsoleConfig = ConsoleConfig()
    wandb: WandbConfig | None = key("null: no W&B", None)
    tensorboard: str | None = key("a folder for TensorBoard", None)


class ComputeConfig(Section):
    """How steps are computed. Null values are chosen at the start of a run, and recorded."""

    graphs: bool | None = key(
        "run training and decoder steps as CUDA graphs; null: on a single GPU, if possible", None
    )
    products: Literal["torch", "onednn"] | None = key(
        "library for float32 matrix products on a CPU; null: onednn if a short benchmark shows "
        "that it is much faster",
        None,
    )


class LimitConfig(Section):
    train: Count | None = key("use only the first examples of the training split", None)
    validation: Count | None = key("the same for validation", None)
    test: Count | None = key("the same for test", None)


class RunConfig(Section):
    """The configuration of one run: a point of the design space, its data and its recipe."""

    task: TaskConfig
    method: MethodName = key("the method's name in folders and tables")
    scale: Literal["paper", "mini"] = key("the paper's setting, or a miniature")
    backbone: BackboneConfig
    recipe: RecipeConfig
    optim: OptimConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig = TrackingConfig()
    attn: SlotConfig | None = key("changes in attention", None)
    ffn: SlotConfig | None = key("changes in the feed-forward sub-layers", None)
    input: SlotConfig | None = key("changes of the embedded input", None)
    matrix: SlotConfig | None = key("changes of weight matrices, in addition to attn and ffn", None)
    peft: TunerConfig | None = key("a method of the PEFT library, in place of the slots", None)
    unfreeze: Names = key("patterns of backbone parameters to train as well", ())
    head: Literal["frozen", "trained"] = key("whether the classifier's parameters are trained")
    limit: LimitConfig = LimitConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = key("seeds data order, dropout and new weights")
    precision: Precision = key("auto: fp32 on a CPU, bf16 or fp16 on a GPU")
    compute: ComputeConfig = ComputeConfig()
    deterministic: bool | None = key("true: use deterministic kernels only", None)
    parallel: Literal["ddp", "fsdp"] = key("replicate the model (ddp) or shard it (fsdp)")
    processes: Annotated[int, Field(ge=1, le=4096)] = key("processes that share every batch")
    output: Annotated[str, Field(pattern=r"\S")] = key("parent folder of the run folders")
    force: bool = key("start afresh even if the run exists")

    def slots(self) -> dict[str, SlotConfig]:
        """Return the filled slots by name."""
        slots = {name: getattr(self, name) for name in SLOTS}
        return {name: slot for name, slot in slots.items() if slot is not None}

    def trains(self) -> bool:
        """Tell whether any parameter trains."""
        return bool(self.slots() or self.peft or self.unfreeze or self.head == "trained")

    def plain(self) -> dict[str, Any]:
        """Convert to dictionaries, lists and scalars, as stored in config.yaml."""
        return self.model_dump(mode="json", by_alias=True)
