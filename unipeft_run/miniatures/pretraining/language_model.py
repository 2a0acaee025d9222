"""Pretrain llama_mini causally: a fixed number of seeded steps on one CPU core or one GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from unipeft_run.miniatures.pretraining import cards, llama, llama_text
from unipeft_run.miniatures.pretraining.batches import Batch
from unipeft_run.miniatures.pretraining.examples import encode
from unipeft_run.miniatures.pretraining.llama import Packing
from unipeft_run.miniatures.pretraining.optimizers import Optimizers
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Schedule, last_entry, save_weights
from unipeft_run.miniatures.sources.rows import write_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

HELD_OUT_DOCUMENTS = 400  # of each source


def compute_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy in nats per token, computed in bf16."""
    device = model.device
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    with torch.autocast(device.type, torch.bfloat16):
        loss: torch.Tensor = model(**moved).loss
    return loss


def held_out_batches(sources: dict[str, list[str]], tokenizer: Tokenizer) -> dict[str, Batch]:
    """Return one padded batch of documents for each source."""
    return {
        name: _pad(encode(tokenizer, texts[:HELD_OUT_DOCUMENTS])) for name, texts in sources.items()
    }


def _pad(documents: list[list[int]]) -> Batch:
    rows = [[IDS["<s>"], *text, IDS["</s>"]][: llama.LENGTH] for text in documents]
    length = max(map(len, rows))
    ids = torch.tensor([row + [IDS["<pad>"]] * (length - len(row)) for row in rows])
    mask = ids != IDS["<pad>"]
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": ids.masked_fill(~mask, -100)}


@torch.no_grad()
def held_out_losses(model: LlamaForCausalLM, held_out: dict[str, Batch]) -> dict[str, float]:
    """Return the loss of each source."""
    model.eval()
    losses = {name: float(compute_loss(model, batch)) for name, batch in held_out.items()}
    model.train()
    return {f"held_out/{name}": round(loss, 4) for name, loss in losses.items()}


def pretrain(folder: Path, schedule: Schedule, start: Path | None = None) -> None:
    """Train llama_mini and write a model folder for `from_pretrained`.

    With `start`, this stage continues from the weights and loss curve in that folder.
    """
    torch.manual_seed(schedule.seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = llama.build_model()
    if start is None:
        (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    else:
        load_stage(model, start, folder)
    tokenizer = llama.save_tokenizer(folder)
    text = llama_text.training_text()
    write_json(
        folder / "corpus.json", {"characters": {k: sum(map(len, v)) for k, v in text.items()}}
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.config.save_pretrained(folder)
    assert model.generation_config is not None
    model.generation_config.save_pretrained(folder)
    packing = Packing(text, tokenizer, schedule.seed)
    fit(model, packing, schedule, folder, held_out_batches(llama_text.held_out_text(), tokenizer))
    (folder / "README.md").write_text(cards.render_llama(folder, schedule), encoding="utf-8")


def load_stage(model: LlamaForCausalLM, start: Path, folder: Path) -> None:
    """Load the weights in `start`, and copy its loss curve to `folder`."""
    missing, unexpected = model.load_state_dict(load_file(start / "model.safetensors"), False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    curve = (start / "loss_curve.jsonl").read_text(encoding="utf-8")
    (folder / "loss_curve.jsonl").write_text(curve, encoding="utf-8")


def fit(
    model: LlamaForCausalLM,
    packing: Packing,
    schedule: Schedule,
    folder: Path,
    held_out: dict[str, Batch],
) -> None:
    """Train for all steps; save the weights and a line of the loss curve at every evaluation."""
    optimizers = Optimizers(model)
    started = time.perf_counter()
    recent: list[float] = []
    before = last_entry(folder)
    batches = packing.batches(schedule.tokens)
    for step in range(1, schedule.steps + 1):
        loss = compute_loss(model, next(batches))
        torch.autograd.backward(loss)
        optimizers.step(schedule.factor(step - 1))
        recent.append(float(loss.detach()))
        if step % schedule.evaluate_every == 0 or step == schedule.steps:
            entry = {
                "stage": before["stage"] + 1,
                "step": before["step"] + step,
                "tokens": before["tokens"] + step * schedule.tokens,
                "seconds": round(time.perf_counter() - started),
                "train/loss": round(sum(recent) / len(recent), 4),
                **held_out_losses(model, held_out),
            }
            print(json.dumps(entry), flush=True)
            with (folder / "loss_curve.jsonl").open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(entry) + "\n")
            save_weights(model, folder)
            recent = []
