"""The random batch that folding compares models on."""

from typing import Any

import pytest
import torch
from tiny_families import backbone

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.deltas.probe import make_probe

ENDS: list[Any] = [None, 0, 1, 2, 3, 4, [3, 2], [1, 2, 3]]


def test_an_end_token_outside_a_small_vocabulary_is_not_used() -> None:
    model = backbone("bart")
    model.config.eos_token_id = model.config.vocab_size  # as the default of a tiny configuration
    assert int(make_probe(model, FAMILIES["bart"])["input_ids"].max()) < model.config.vocab_size


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pad", [None, 0, 2, 3])
def test_words_are_in_the_vocabulary_and_not_special(pad: Any, end: Any) -> None:
    model = backbone("bart")
    model.config.pad_token_id, model.config.eos_token_id = pad, end
    model.config.vocab_size = 5
    probe = make_probe(model, FAMILIES["bart"])
    ids, mask = probe["input_ids"], probe["attention_mask"]
    ends = end if isinstance(end, list) else [end or 0]
    assert int(ids.max()) < 5
    assert ids[0, 8] == ids[1, 5] == ends[0]
    words = torch.cat([ids[0, :8], ids[1, :5]])
    assert not set(words.tolist()) & {pad or 0, *ends}
    assert mask[1, 6:].sum() == 0 and set(ids[1, 6:].tolist()) == {pad or 0}
