"""Pretrain clip_mini and vit_mini on emoji pictures and names, with CLIP's contrastive loss.

Only the pictures of two artists are used (Noto Emoji and EmojiOne), none of the artist whose
pictures the tasks are tested on (Twemoji).

Shapes: N pairs in a batch, D = the projection's width.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from unipeft_run.miniatures.pretraining import cards, clip, vit
from unipeft_run.miniatures.pretraining.optimizers import Optimizers
from unipeft_run.miniatures.pretraining.pictures import augment, decode, normalise
from unipeft_run.miniatures.pretraining.tokenizer import IDS
from unipeft_run.miniatures.pretraining.train import Schedule, last_entry, save_weights
from unipeft_run.miniatures.sources import emoji

if TYPE_CHECKING:
    from transformers import CLIPModel

DECAY = 0.1
LONGEST = 12  # tokens of a name; 3 % of the names are truncated
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pictures:
    """Pictures as uint8 pixels [M, 3, H, W], and the number of each one's emoji [M]."""

    pixels: Tensor
    names: Tensor


def load_pictures(
    artists: list[emoji.Artist], known: list[emoji.Emoji], split: str | None = None
) -> Pictures:
    """Decode the artists' pictures of the known emoji, or of those of a held-out split."""
    pixels, names = [], []
    for artist in artists:
        pictures = artist.read_pictures()
        for number, item in enumerate(known):
            if item.code in pictures and split in (None, item.held_out):
                pixels.append(decode(pictures[item.code]))
                names.append(number)
    return Pictures(torch.stack(pixels), torch.tensor(names))


def encode_names(known: list[emoji.Emoji], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return `input_ids` and `attention_mask` of all names."""
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(pad_id=IDS["<pad>"], pad_token="<pad>")
    encoded = tokenizer.encode_batch([item.name for item in known])
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


def draw_positions(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the position of each text's second token, so that names are learnt at all positions."""
    rows, length = ids.shape
    first = torch.randint(0, clip.POSITIONS - length + 1, (rows, 1), generator=generator)
    positions = torch.arange(length) + first
    positions[:, 0] = 0
    return positions


def embed_texts(
    model: CLIPModel, ids: Tensor, mask: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Return the unit embeddings of texts, [N, D]."""
    pooled = model.text_model(
        input_ids=ids, attention_mask=mask, position_ids=positions
    ).pooler_output
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


def pretrain_clip(folder: Path, schedule: Schedule, start: Path | None = None) -> None:
    """Train clip_mini and write a model folder for `from_pretrained`.

    With `start`, this stage continues from the weights and loss curve in that folder.
    """
    torch.manual_seed(schedule.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip.save_tokenizer(folder)
    clip.save_preprocessor(folder)
    (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    model = clip.build_clip()
    if start is not None:
        model.load_state_dict(load_file(start / "model.safetensors"))
        shutil.copy(start / "loss_curve.jsonl", folder)
    model.config.save_pretrained(folder)
    known = emoji.read_emoji()
    ids, mask = encode_names(known, tokenizer)
    embed = partial(embed_pictures, model)
    generator = torch.Generator().manual_seed(schedule.seed + 1)

    def loss(pixels: Tensor, names: Tensor) -> Tensor:
        positions = draw_positions(ids[names], generator)
        texts = embed_texts(model, ids[names], mask[names], positions)
        return contrastive_loss(embed(pixels), texts, model.logit_scale.exp().clamp(max=100))

    def measure(held_out: Pictures) -> float:
        return recall_at_1(embed, embed_texts(model, ids, mask), held_out)

    fit(model, known, loss, measure, schedule, folder)
    card = cards.render_clip("clip_mini", folder, schedule)
    (folder / "README.md").write_text(card, encoding="utf-8")


def pretrain_vit(start: Path, folder: Path, schedule: Schedule) -> None:
    """Continue the vision tower of the clip_mini in `start` as a ViT; write a model folder.

    The text tower and the projections stay as they are and give the targets.
    """
    from transformers import CLIPModel

    torch.manual_seed(schedule.seed)
    folder.mkdir(parents=True, exist_ok=True)
    clip.save_preprocessor(folder)
    (folder / "loss_curve.jsonl").unlink(missing_ok=True)
    teacher = CLIPModel.from_pretrained(start, dtype="float32").requires_grad_(False).eval()
    known = emoji.read_emoji()
    sample = load_pictures([emoji.NOTO], known)
    model = vit.from_clip(teacher, normalise(sample.pixels[::8]))
    model.config.save_pretrained(folder)
    ids, mask = encode_names(known, Tokenizer.from_file(str(start / "tokenizer.json")))
    with torch.no_grad():
        texts = embed_texts(teacher, ids, mask)

    def embed(pixels: Tensor) -> Tensor:
        pooled = model.vit(pixel_values=pixels).last_hidden_state[:, 0]
        return normalize(teacher.visual_projection(pooled), dim=-1)

    def loss(pixels: Tensor, names: Tensor) -> Tensor:
        return contrastive_loss(embed(pixels), texts[names], teacher.logit_scale.exp())

    fit(model, known, loss, partial(recall_at_1, embed, texts), schedule, folder)
    card = cards.render_clip("vit_mini", folder, schedule)
    (folder / "README.md").write_text(card, encoding="utf-8")


def fit(
    model: torch.nn.Module,
    known: list[emoji.Emoji],
    loss: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[Pictures], float],
    schedule: Schedule,
    folder: Path,
) -> None:
    """Train for all steps; save the weights and a line of the loss curve at every evaluation."""
    pictures = load_pictures([emoji.NOTO, emoji.EMOJIONE], known)
    held_out = load_pictures([emoji.TWEMOJI], known, "validation")
    generator = torch.Generator().manual_seed(schedule.seed)
    optimizers = Optimizers(model, DECAY)
    before = {"pictures": 0, **last_entry(folder)}
    started = time.perf_counter()
    recent: list[float] = []
    batches = draw_batches(pictures, schedule.tokens, generator)
    for step in range(1, schedule.steps + 1):
        pixels, names = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(pixels, names)
        torch.autograd.backward(value)
        optimizers.step(schedule.factor(step - 1))
        recent.append(float(value.detach()))
        if step % schedule.evaluate_every == 0 or step == schedule.steps:
            model.eval()
            entry = {
                "stage": before["stage"] + 1,
                "step": before["step"] + step,
                "pictures": before["pictures"] + step * schedule.tokens,
                "seconds": round(time.perf_counter() - started),
                "train/loss": round(sum(recent) / len(recent), 4),
                "held_out/recall@1": round(measure(held_out), 2),
            }
            model.train()
            print(json.dumps(entry), flush=True)
            with (folder / "loss_curve.jsonl").open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(entry) + "\n")
            save_weights(model, folder)
            recent = []
