"""Compare peak memory and time of the chunked loss with the loss over all logits.

    python scripts/bench_loss.py [--positions 4096] [--width 64] [--train-head]

Each loss runs one forward and backward pass of a small mBART in its own process. Memory is the
growth of the process's peak on a CPU, and of the allocator's peak on a GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from transformers import MBartConfig, MBartForConditionalGeneration

from unipeft_run.training.losses import Loss, SequenceLoss, cross_entropy

LENGTH = 512
SMOOTHING = 0.1


def dense(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Compute the loss over all logits at once."""
    inputs = {name: batch[name] for name in batch if name != "labels"}
    logits = model(**inputs, use_cache=False).logits
    return cross_entropy(logits, batch["labels"], SMOOTHING), batch["labels"].numel()


LOSSES: dict[str, Loss] = {"chunked": SequenceLoss(SMOOTHING), "all logits": dense}  # type: ignore[dict-item]


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one pass and return its MiB, seconds and loss."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, batch = build_setting(options, device)
    before = peak_mib(device)
    began = time.perf_counter()
    loss, _ = LOSSES[name](model, batch)
    loss.backward()
    value = loss.item()
    seconds = time.perf_counter() - began
    return {"mib": peak_mib(device) - before, "seconds": seconds, "loss": value}


def build_setting(
    options: argparse.Namespace, device: str
) -> tuple[MBartForConditionalGeneration, dict[str, torch.Tensor]]:
    """Build a one-layer model and a batch; the output head trains only with --train-head."""
    torch.manual_seed(0)
    width = options.width
    config = MBartConfig(
        vocab_size=options.vocabulary,
        d_model=width,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=width,
        decoder_ffn_dim=width,
    )
    model = MBartForConditionalGeneration(config).to(device)
    model.get_output_embeddings().weight.requires_grad_(options.train_head)
    shape = options.positions // LENGTH, LENGTH
    ids = torch.randint(4, options.vocabulary, shape, device=device)
    return model, {"input_ids": ids[:, :8], "decoder_input_ids": ids, "labels": ids}


def peak_mib(device: str) -> float:
    """Return the peak memory so far, in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Print a row for each loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=250_027)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--train-head", action="store_true")
    parser.add_argument("--only", choices=LOSSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    head = "trained" if options.train_head else "frozen"
    print(f"{options.positions:,} positions, vocabulary {options.vocabulary:,}, head {head}")
    print(f"{'loss':<12}{'peak MiB':>10}{'seconds':>10}{'value':>12}")
    for name in LOSSES:
        command = [sys.executable, *sys.argv, "--only", name]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:
            print(f"{name:<12}  failed with {child.returncode} (out of memory?)")
            continue
        row = json.loads(child.stdout)
        print(f"{name:<12}{row['mib']:>10,.0f}{row['seconds']:>10.1f}{row['loss']:>12.5f}")


if __name__ == "__main__":
    main()
