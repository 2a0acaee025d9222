"""Write the README.md of an exported run: its origin, use, scores and settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config.contents import foreign_classes
from unipeft_run.data.new_inputs import input_columns
from unipeft_run.inference.loaded_run import LoadedRun
from unipeft_run.inference.loader import example_input
from unipeft_run.interop.target import CARD, ORIGIN
from unipeft_run.runs.folder import read_object

LIBRARIES = {"merged": "transformers", "delta": "unipeft", "peft": "peft"}
MERGED = {
    "seq2seq": """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForSeq2SeqLM.from_pretrained({name!r})
batch = tokenizer({texts}, truncation=True, padding=True, return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))""",
    "causal": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForCausalLM.from_pretrained({name!r})
prompts = {texts}  # fill in the fields in braces
batch = tokenizer(prompts, padding=True, return_tensors="pt")
tokens = model.generate(**batch)[:, batch["input_ids"].size(1) :]
print(tokenizer.batch_decode(tokens, skip_special_tokens=True))""",
    "regression": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForSequenceClassification.from_pretrained({name!r})
batch = tokenizer({texts}, truncation=True, padding=True, return_tensors="pt")
print(model(**batch).logits[:, 0].tolist())""",
    "classification": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForSequenceClassification.from_pretrained({name!r})
batch = tokenizer({texts}, truncation=True, padding=True, return_tensors="pt")
classes = model(**batch).logits.argmax(-1).tolist()
print([model.config.id2label[number] for number in classes])""",
    "image_classification": """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained({name!r})
model = AutoModelForImageClassification.from_pretrained({name!r})
batch = processor(Image.open("picture.png"), return_tensors="pt")
print(model.config.id2label[int(model(**batch).logits.argmax(-1))])""",
    "retrieval": """\
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

tokenizer = AutoTokenizer.from_pretrained({name!r})
processor = AutoImageProcessor.from_pretrained({name!r})
model = CLIPModel.from_pretrained({name!r})
texts = tokenizer(["a text", "another"], truncation=True, padding=True, return_tensors="pt")
images = processor([Image.open("picture.png")], return_tensors="pt")
print(model(**texts, **images).logits_per_text)""",
}
LOAD = """\
from unipeft_run import load_run

run = load_run({name!r}{allow})"""
DELTA = (
    LOAD
    + """
print(run.predict([{example}]))"""
)
PEFT = """\
import peft

model = peft.PeftModel.from_pretrained(backbone, {name!r})"""


def write_card(run: LoadedRun, folder: Path, kind: str, name: str) -> None:
    """Write README.md to `folder`, an export of this kind that will be called `name`."""
    text = "\n".join(_lines(run, kind, name)) + "\n"
    (folder / CARD).write_text(text, encoding="utf-8")


def _lines(run: LoadedRun, kind: str, name: str) -> Iterator[str]:
    config, metrics = run.config, read_object(run.folder / "metrics.json")
    yield from ("---", yaml.safe_dump(_front_matter(run, kind)).rstrip(), "---", "")
    yield f"# {config.task.name}: {config.method} on {config.backbone.name}"
    yield from ("", f"{ORIGIN}`{run.folder.name}`.", "")
    yield from ("## Use", "", "```python", _usage(run, kind, name), "```", "")
    if run.label_names:
        yield from (f"Classes: {', '.join(run.label_names)}.", "")
    if note := _search_note(run, kind):
        yield from (note, "")
    if scores := _scores(metrics):
        yield from ("## Scores on the test split", "", "| metric | value |", "| --- | --- |")
        yield from (f"| {metric} | {_number(metric, value)} |" for metric, value in scores.items())
        yield ""
    yield from ("## Settings", "", "```yaml", _settings(run), "```")


def _front_matter(run: LoadedRun, kind: str) -> dict[str, Any]:
    matter = {"library_name": LIBRARIES[kind], "tags": ["unipeft", run.config.method]}
    hub = run.config.backbone.hub
    return {**matter, **({"base_model": hub} if hub else {})}


def _usage(run: LoadedRun, kind: str, name: str) -> str:
    if kind == "merged":
        pair = len(input_columns(run.task)) == 2
        texts = '["a premise"], ["a hypothesis"]' if pair else '["a text"]'
        if template := getattr(run.task, "prompt_template", None):
            texts = f"[{template!r}]"
        return MERGED[run.task.kind].format(name=name, texts=texts)
    if run.task.no_predictions:
        return LOAD.format(name=name, allow=_allow(run))
    usage = DELTA if kind == "delta" else PEFT
    return usage.format(name=name, example=example_input(run.task), allow=_allow(run))


def _allow(run: LoadedRun) -> str:
    foreign = foreign_classes(run.config)
    return f", allow={foreign}" if foreign else ""


def _search_note(run: LoadedRun, kind: str) -> str:
    """Return a note if transformers' beam search follows other rules than the run's."""
    decoding = run.config.evaluation.decoding
    if kind != "merged" or decoding is None or decoding.num_beams == 1:
        return ""
    if decoding.rules == "transformers":
        return ""
    return (
        "The scores below were generated under the beam-search rules of 2021, those of the paper's "
        "code. transformers' `generate` follows today's rules, so some texts differ."
    )


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    names = [name for name in metrics if name.startswith("test/")]
    return {n.removeprefix("test/"): metrics[n] for n in names if isinstance(metrics[n], float)}


def _number(metric: str, value: float) -> str:
    return f"{value:.4f}" if metric.startswith("loss") else f"{value:.2f}"


def _settings(run: LoadedRun) -> str:
    plain = run.config.plain()
    kept = {key: plain[key] for key in ("method", "seed", "optim", "recipe")}
    kept["decoding"] = plain["evaluation"]["decoding"]
    return yaml.safe_dump(_without_nulls(kept), sort_keys=False).rstrip()


def _without_nulls(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    return node
