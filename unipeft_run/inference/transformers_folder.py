"""Write a model folder that transformers loads: weights, configuration, tokenizer, generation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

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
        model.generation_config = _convert_settings(generation, model.config)
    with no_progress_bars():
        model.save_pretrained(folder)
        task_type_of(run.task).save_processor(run.task, run.tokenizer, folder)


def _convert_settings(generation: Mapping[str, Any], config: Any) -> GenerationConfig:
    """Convert decoding settings for transformers, and record the decoder's start in `config`."""
    if config.is_encoder_decoder:
        settings = Settings.read(generation, config, generation["rules"])
        config.decoder_start_token_id = settings.start
        return settings.to_generation_config()
    settings = Settings.read(generation, config, generation["rules"], prompt=0)
    own = settings.to_generation_config()
    if generation.get("max_new_tokens") is not None:
        own.max_length, own.max_new_tokens = None, settings.max_length
    return own
