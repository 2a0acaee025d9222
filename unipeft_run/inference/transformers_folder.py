"""Write a model folder that transformers loads: weights, configuration, tokenizer, generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipeft_run.backbones.quiet import no_progress_bars
from unipeft_run.evaluation.generation.settings import Settings
from unipeft_run.inference.loaded_run import LoadedRun
from unipeft_run.task_types.registry import task_type_of


def save_for_transformers(run: LoadedRun, model: Any, folder: Path) -> None:
    """Write `model`, which has no deltas, and the run's tokenizer and settings to `folder`.

    `config.json` names the classes, `generation_config.json` holds the run's decoding settings, and
    the tokenizer truncates at the run's length.
    """
    generation = run.predictor().generation
    if generation is not None:
        prompt = None if model.config.is_encoder_decoder else 1
        settings = Settings.read(generation, model.config, generation["rules"], prompt)
        if prompt is None:
            model.config.decoder_start_token_id = settings.start
        model.generation_config = settings.to_generation_config()
        if generation.get("max_new_tokens") is not None:
            model.generation_config.max_length = None
            model.generation_config.max_new_tokens = generation["max_new_tokens"]
    with no_progress_bars():
        model.save_pretrained(folder)
        task_type_of(run.task).save_processor(run.task, run.tokenizer, folder)
