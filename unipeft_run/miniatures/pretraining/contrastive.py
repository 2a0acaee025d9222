"""Pretrain clip_mini and vit_mini on emoji pictures and names, with CLIP's contrastive loss.

Only the pictures of two artists are used (Noto Emoji and EmojiOne), none of the artist whose
pictures the tasks are tested on (Twemoji).

Shapes: N pairs in a batch, D = the projection's width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from unipeft_run.miniatures.pretraining import clip
from unipeft_run.miniatures.pretraining.optimizers import Optimizers
from unipeft_run.miniatures.pretraining.pictures import augment, decode, normalise
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Schedule, save_weights
from unipeft_run.miniatures.sources import emoji

if TYPE_CHECKING:
    from transformers import CLIPModel

SCALE = 20.0  # of the cosine similarities in the loss of vit_mini
DECAY = 0.1
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pictures:
    """Pictures as uint8 pixels [M, 3, H, W], and the number of each one's emoji [M]."""

    pixels: Tensor
    names: Tensor


def load_pictures(artists: list[emoji.Artist], known: list[emoji.Emoji]) -> Pictures:
    """Decode the artists' pictures of the known emoji."""
    pixels, names = [], []
    for artist in artists:
        pictures = artist.read_pictures()
        for number, item in enumerate(known):
            if item.code in pictures:
                pixels.append(decode(pictures[item.code]))
                names.append(number)
    return Pictures(torch.stack(pixels), torch.tensor(names))


def encode_names(known: list[emoji.Emoji], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return `input_ids` and `attention_mask` of all names."""
    tokenizer.enable_padding(pad_id=IDS["<pad>"], pad_token="<pad>")
    encoded = tokenizer.encode_batch([item.name for item in known])
    tokenizer.no_padding()
    ids = torch.tensor([text.ids for text in encoded])
    return ids, (ids != IDS["<pad>"]).long()


def draw_batches(
    pictures: Pictures, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented pixels and names of `size` different emoji, one picture of each."""
    numbers = sorted(set(pictures.names.tolist()))
    places = [(pictures.names == number).nonzero()[:, 0] for number in numbers]
    while True:
        chosen = torch.randperm(len(places), generator=generator)[:size].tolist()
        picks = [
            places[i][torch.randint(len(places[i]), (1,), generator=generator)] for i in chosen
        ]
        rows = torch.cat(picks)
        yield augment(pictures.pixels[rows], generator), pictures.names[rows]


def embed_texts(model: CLIPModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the unit embeddings of texts, [N, D]."""
    pooled = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
    return normalize(model.text_projection(pooled), dim=-1)


def embed_pictures(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Return the unit embeddings of pictures, [N, D]."""
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return normalize(model.visual_projection(pooled), dim=-1)


def contrastive_loss(pictures: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """Return the mean of the cross-entropies in both directions."""
    logits = scale * pictures @ texts.T
    right = torch.arange(len(logits))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


@torch.no_grad()
def recall_at_1(embed: Embed, texts: Tensor, pictures: Pictures) -> float:
    """Return the share of pictures (%) whose nearest name among all is their own."""
    found = [embed(normalise(part)) @ texts.T for part in torch.split(pictures.pixels, 256)]
    return 100 * float((torch.cat(found).argmax(1) == pictures.names).float().mean())


def pretrain_clip(folder: Path, schedule: Schedule) -> None:
    """Train clip_mini and write a model folder for `from_pretrained`."""
    torch.manual_seed(schedule.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip.save_tokenizer(folder)
    clip.save_preprocessor(folder)
    model = clip.build_clip()
    model.config.save_pretrained(folder)
    known = emoji.read_emoji()
    ids, mask = encode_names(known, tokenizer)
    held_out = load_pictures([emoji.TWEMOJI], [i for i in known])

    def loss(pixels: Tensor, names: Tensor) -> Tensor:
        texts = embed_texts(model, ids[names], mask[names])
        scale = model.logit_scale.exp().clamp(max=100)
        return contrastive_loss(embed_pictures(model, pixels), texts, scale)

    def measure() -> float:
        return recall_at_1(
            lambda x: embed_pictures(model, x), embed_texts(model, ids, mask), held_out
        )

    fit(model, known, loss, measure, schedule, folder)


def fit(
    model: torch.nn.Module,
    known: list[emoji.Emoji],
    loss: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[], float],
    schedule: Schedule,
    folder: Path,
) -> None:
    """Train for all steps; save the weights and a line of the loss curve at every evaluation."""
    pictures = load_pictures([emoji.NOTO, emoji.EMOJIONE], known)
    generator = torch.Generator().manual_seed(schedule.seed)
    optimizers = Optimizers(model, DECAY)
    (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    started, recent = time.perf_counter(), []
    batches = draw_batches(pictures, schedule.tokens, generator)
    for step, (pixels, names) in zip(range(1, schedule.steps + 1), batches):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(pixels, names)
        torch.autograd.backward(value)
        optimizers.step(schedule.factor(step - 1))
        recent.append(float(value.detach()))
        if step % schedule.evaluate_every == 0 or step == schedule.steps:
            model.eval()
            entry = {
                "step": step,
                "pictures": step * schedule.tokens,
                "seconds": round(time.perf_counter() - started),
                "train/loss": round(sum(recent) / len(recent), 4),
                "held_out/recall@1": round(measure(), 2),
            }
            model.train()
            print(json.dumps(entry), flush=True)
            with (folder / "loss_curve.jsonl").open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(entry) + "\n")
            save_weights(model, folder)
            recent = []
