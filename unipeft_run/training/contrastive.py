"""The contrastive loss of text and video pairs, over the batch of all processes.

Shapes: B pairs of this process, G pairs of all processes, N frames of its videos, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import all_reduce_sum
from unipeft_run.training.losses import cross_entropy

Batch = Mapping[str, Tensor]
OURS = ("labels", "frames")  # entries of a batch that the model does not read


class ContrastiveLoss:
    """Symmetric cross-entropy of the similarities of every text and every video of the batch.

        L = (CE(s T V^T) + CE(s V T^T)) / 2,   s = exp(logit_scale)

    Every text's class is its video, and the reverse. With several processes, each one's pairs are
    compared with the pairs of all; gradients flow back to the process that computed a feature.
    Micro-batches are not compared with each other. Similarities are in float32 or wider, since a
    scale of 100 would round those of bfloat16 to steps of up to 0.5.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
        texts, videos = encode_pairs(model, batch)
        all_texts, all_videos, first = gather_pairs(texts, videos)
        targets = first + torch.arange(len(texts), device=texts.device)
        scale = logit_scale(model)
        sides = (texts, all_videos), (videos, all_texts)
        with torch.autocast(texts.device.type, enabled=False):
            losses = [
                cross_entropy(scale * queries @ candidates.mT, targets, self.smoothing)
                for queries, candidates in sides
            ]
        return sum(losses, torch.zeros_like(losses[0])) / 2, len(texts)


def encode_pairs(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return normalised features of texts and videos, [B, D] each, in float32 or wider."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in OURS}
    output: Any = model(**inputs)
    return _normalise(output.text_embeds), mean_of_frames(output.image_embeds, batch["frames"])


def mean_of_frames(features: Tensor, frames: Tensor) -> Tensor:
    """Return the normalised mean of the normalised features [N, D] of each video's frames.

    `frames` [B] counts them. Without parameters: "meanP" of CLIP4Clip (Luo et al., 2021).
    """
    normal = _normalise(features)
    videos = torch.repeat_interleave(
        torch.arange(len(frames), device=frames.device), frames, output_size=len(normal)
    )
    sums = normal.new_zeros(len(frames), normal.size(1)).index_add(0, videos, normal)
    return F.normalize(sums, dim=-1)


def logit_scale(model: nn.Module) -> Tensor:
    """Return exp(logit_scale), the inverse temperature."""
    inner: Any = extract_model_from_parallel(model)
    scale: Tensor = inner.logit_scale.exp()
    return scale


def split_loss(
    texts: Tensor, videos: Tensor, owners: Tensor, *, scale: Tensor, chunk: int
) -> Tensor:
    """Return the loss of a whole split: texts [T, D], and the videos [V, D] that `owners` [T] name.

    A video's class is each of its texts in turn. `chunk` similarities are computed at a time.
    """
    both = []
    for queries, candidates, targets in (
        (texts, videos, owners),
        (videos[owners], texts, torch.arange(len(texts), device=texts.device)),
    ):
        rows = max(1, chunk // len(candidates))
        parts = zip(torch.split(queries, rows), torch.split(targets, rows), strict=True)
        sums = [len(q) * cross_entropy(scale * q @ candidates.mT, t) for q, t in parts]
        both.append(torch.stack(sums).sum() / len(queries))
    return (both[0] + both[1]) / 2


def gather_pairs(texts: Tensor, videos: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the features of all processes, [G, D] each, and the place of this one's first pair."""
    if processes.world_size() == 1:
        return texts, videos, 0
    counts = _gather_counts(len(texts), texts.device)
    longest, width = max(counts), texts.size(1)
    pairs = torch.cat([texts, videos], dim=1)
    padded = F.pad(pairs, (0, 0, 0, longest - len(pairs)))
    parts: Sequence[Tensor] = all_gather(padded)  # type: ignore[no-untyped-call]
    everything = torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
    first = sum(counts[: processes.rank()])
    return everything[:, :width], everything[:, width:], first


def _gather_counts(count: int, device: torch.device) -> list[int]:
    counts = [0.0] * processes.world_size()
    counts[processes.rank()] = count
    return [int(number) for number in all_reduce_sum(counts, device)]


def _normalise(features: Tensor) -> Tensor:
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(wide, dim=-1)
