"""Run the decoder of an encoder-decoder model: BART, mBART and T5.

Shape legend: B sources, K beams, n tokens so far, H heads, S source positions, P longest prefix,
D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipeft_run.evaluation.generation.cache import BeamCache, CrossCache, SelfCache
from unipeft_run.evaluation.generation.decoder import Decoder, count_longest, find_prefixes
from unipeft_run.evaluation.generation.onednn import onednn_linears
from unipeft_run.evaluation.generation.relative_bias import RelativeBias
from unipeft_run.evaluation.generation.settings import Settings


@torch.no_grad()
def encode(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Run the encoder; return its states, [B, S, D]. A prompt makes S longer than the input."""
    with onednn_linears(model, products=1):
        output = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
    states = output.last_hidden_state
    assert isinstance(states, Tensor)
    return states


def start_tokens(states: Tensor, settings: Settings) -> Tensor:
    """Return the decoder start token of each source, [B, 1]."""
    assert settings.start is not None
    return torch.full((len(states), 1), settings.start, device=states.device)


class EncoderDecoder(Decoder):
    """The decoder of an encoder-decoder model; the keys of the sources are computed once."""

    def __init__(
        self, model: Any, states: Tensor, attention_mask: Tensor, settings: Settings
    ) -> None:
        super().__init__(model, start_tokens(states, settings), settings, states.dtype)
        self.states = states
        own, cross = (find_prefixes(model, kind) for kind in ("self", "cross"))
        self.prefix_length = count_longest(own)
        self.cross_mask: Tensor | None = None  # all visible
        if not bool(attention_mask.all()):
            self.cross_mask = mask_sources(attention_mask, states.size(1) + count_longest(cross))
        self.own = SelfCache(own, self.steps)
        self.cache = BeamCache(self.own, CrossCache(cross))
        self.bias = RelativeBias.find(model)

    def start(self) -> None:
        super().start()
        if self.bias is None:
            positions = self.model.get_decoder().embed_positions
            handle = positions.register_forward_pre_hook(self._share_position, with_kwargs=True)
            self.contexts.callback(handle.remove)

    def keep(self, rows: Tensor) -> None:
        self.states = self.states[rows]
        self.cross_mask = None if self.cross_mask is None else self.cross_mask[rows]
        self.cache.keep(rows)

    def step(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return self._run(tokens, F.pad(visible, (self.prefix_length, 0), value=True))

    def _run(self, tokens: Tensor, mask: Tensor) -> Tensor:
        biases = {} if self.bias is None else self.bias(self.own.position, tokens.size(1))
        logits = self.model(
            encoder_outputs=(self.states,),
            decoder_input_ids=tokens,
            decoder_attention_mask=mask,
            cross_mask=self.cross_mask,
            biases=biases,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        assert isinstance(logits, Tensor)
        return logits

    def _share_position(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Set the position of all beams to that of the current step. A forward pre-hook."""
        del module
        positions = torch.full_like(kwargs["position_ids"], self.own.position)
        return args, {**kwargs, "position_ids": positions}


def mask_sources(attention_mask: Tensor, length: int) -> Tensor:
    """Return the mask of visible source positions, with prompts and prefixes, [B, 1, 1, P + S].

    `length` is P + S.
    """
    leading = length - attention_mask.size(1)
    return F.pad(attention_mask.bool(), (leading, 0), value=True)[:, None, None]
