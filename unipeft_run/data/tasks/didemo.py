"""DiDeMo: short videos described sentence by sentence (Hendricks et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from unipeft_run.config.types import Count
from unipeft_run.data.tasks.retrieval import Paragraphs, Retrieval


@dataclass(kw_only=True)
class DiDeMo(Retrieval):
    """Paragraph to video retrieval, as in CLIP4Clip: all sentences of a video are one text."""

    frames: Count = 64
    paragraphs: Paragraphs = "all"
