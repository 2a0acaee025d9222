"""The official forward pass, rewritten from its equations without any code of the package.

Section numbers refer to a description of jxhe/unify-parameter-efficient-tuning at 3222ce2c0, which
docs/fidelity.md summarises. A state maps official names, without `pretrained_model.`, to tensors.
Every dropout is 0.
"""

from typing import Any

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]
HEADS = 4


class Official:
    def __init__(self, family: str, options: dict[str, Any], state: State) -> None:
        self.family, self.o, self.s = family, options, state
        self.d = state[self._word_embedding()].size(1)

    def _word_embedding(self) -> str:
        roberta = "roberta.embeddings.word_embeddings.weight"
        return roberta if self.family == "roberta" else "model.shared.weight"

    # -- blocks ------------------------------------------------------------------------------

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Compute y = x W^T + b, plus alpha/r x A^T B^T with LoRA (section 6)."""
        y = x @ self.s[f"{name}.weight"].T + self.s[f"{name}.bias"]
        if f"{name}.ef_lora_A" in self.s:
            a, b = self.s[f"{name}.ef_lora_A"], self.s[f"{name}.ef_lora_B"]
            y = y + self.o["lora_alpha"] / a.size(0) * (x @ a.T @ b.T)
        return y

    def ln(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(
            x, (self.d,), self.s[f"{name}.weight"], self.s[f"{name}.bias"], eps=1e-5
        )

    def adapter(self, base: str, x: torch.Tensor, norm: str, scale: Any) -> torch.Tensor:
        """Compute an adapter without its residual (section 4)."""
        u = self.ln(f"{base}.adapter_layer_norm_before", x) if norm == "in" else x
        y = self.linear(f"{base}.up_proj", F.relu(self.linear(f"{base}.down_proj", u))) * scale
        return self.ln(f"{base}.adapter_layer_norm_before", y) if norm == "out" else y

    def ffn_adapter(self, base: str, x: torch.Tensor) -> torch.Tensor:
        scalar = self.o["ffn_adapter_scalar"]
        scale = self.s[f"{base}.scale"] if scalar == "learnable_scalar" else float(scalar)
        return self.adapter(base, x, self.o["ffn_adapter_layernorm_option"], scale)

    def prefix(self, kind: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute P_k and P_v, each [H, l, hd] (section 5.1)."""
        if self.o["attn_mode"] == "prefix_nomlp":
            stem = {"self": "decoder_self_attn", "cross": "decoder_cross_attn"}
            stem |= {"encoder": "encoder_attn"}
            names = [f"prompt_model.{stem[kind]}_{x}.{layer}.weight" for x in ("key", "value")]
            pair = [self.s[name] for name in names]
        else:
            wte = {"self": "wte", "cross": "wte2", "encoder": "wte_enc"}[kind]
            mlp = {"self": "", "cross": "2", "encoder": "_enc"}[kind]
            e = self.s[f"prompt_model.{wte}.weight"]
            hidden = torch.tanh(self.linear(f"prompt_model.control_trans{mlp}.0", e))
            out = self.linear(f"prompt_model.control_trans{mlp}.2", hidden)
            slots = out.split(self.d, dim=1)
            pair = [slots[2 * layer], slots[2 * layer + 1]]
        key, value = (p.view(p.size(0), HEADS, -1).transpose(0, 1) for p in pair)
        return key, value

    # -- attention: sections 3, 4 and 5.2 ----------------------------------------------------

    def attention(
        self, a: str, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor, kind: str
    ) -> torch.Tensor:
        names = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
        inside, outside, projection = a, a, f"{a}.out_proj"
        if self.family == "roberta":
            names = {"q": "query", "k": "key", "v": "value"}
            inside, outside = f"{a}.self", f"{a}.output"
            projection = f"{a}.output.dense"
        q = _heads(self.linear(f"{inside}.{names['q']}", x))
        k, v = (_heads(self.linear(f"{inside}.{names[n]}", source)) for n in ("k", "v"))
        ctx = self.heads(inside, names["q"], x, q, k, v, mask, kind)
        ctx = ctx.transpose(1, 2).flatten(2)
        mode, option = self.o["attn_mode"], self.o["attn_option"]
        if mode == "adapter" and option == "parallel":  # before the output projection
            ctx = ctx + self.adapter(f"{inside}.ef_attn_adapter", x, "in", 1.0)
        o = self.linear(projection, ctx)
        if mode == "adapter" and option == "sequential":
            o = o + self.adapter(f"{outside}.ef_attn_adapter", o, "in", 1.0)
        return o

    def heads(
        self,
        a: str,
        query: str,
        x: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor,
        kind: str,
    ) -> torch.Tensor:
        scale = q.size(-1) ** -0.5
        logits = (q * scale) @ k.transpose(-1, -2) + mask
        if not self.o["attn_mode"].startswith("prefix"):
            return logits.softmax(-1) @ v
        found = [part for part in a.split(".") if part.isdigit()]
        key, value = self.prefix(kind, int(found[0]))
        option = self.o["attn_option"]
        if option == "concat":
            joint = torch.cat([(q * scale) @ key.transpose(-1, -2), logits], -1).softmax(-1)
            length = key.size(1)
            return joint[..., :length] @ value + joint[..., length:] @ v
        normed = option == "cross_attn" or (option == "cross_attn_relu" and self.family == "bart")
        own = q
        if normed:
            own = _heads(self.linear(f"{a}.{query}", self.ln(f"{a}.ef_transform_layer_norm", x)))
        if not (option == "cross_attn_relu" and self.family == "bart"):
            own = own * scale
        weights = own @ key.transpose(-1, -2)
        e = (F.relu(weights) if option == "cross_attn_relu" else weights.softmax(-1)) @ value
        ctx = logits.softmax(-1) @ v
        if self.o["attn_composition"] == "add":
            return ctx + e
        prefix_mass, mass = weights.exp().sum(-1, True), logits.exp().sum(-1, True)  # section 5.3
        gate = prefix_mass / (prefix_mass + mass)
        return (1 - gate) * ctx + gate * e

    # -- FFN: section 3 -------------------------------------------------------------

    def ffn(self, layer: str, h: torch.Tensor) -> torch.Tensor:
        """Compute the rest of the layer after h, including its last LayerNorm."""
        first, second, last = f"{layer}.fc1", f"{layer}.fc2", f"{layer}.final_layer_norm"
        inner = outer = f"{layer}.ef_ffn_adapter"
        if self.family == "roberta":
            first, second = f"{layer}.intermediate.dense", f"{layer}.output.dense"
            last, inner = f"{layer}.output.LayerNorm", f"{layer}.output.ef_ffn_adapter"
        read = self.ln(last, h) if self.family == "mbart" else h
        f = self.linear(second, F.gelu(self.linear(first, read)))
        option = self.o["ffn_option"] if self.o["ffn_mode"] == "adapter" else None
        if option == "parallel":
            f = f + self.ffn_adapter(outer, h)  # mBART: before the LayerNorm
        if option == "sequential":
            f = f + self.ffn_adapter(inner, f)
        if self.family == "mbart":
            y = h + f
            return h + (f + self.ffn_adapter(outer, y)) if option == "pfeiffer" else y
        if option == "pfeiffer":  # the same LayerNorm twice; BART by analogy with RoBERTa
            f = f + self.ffn_adapter(inner, self.ln(last, f + h))
        return self.ln(last, f + h)

    # -- models ------------------------------------------------------------------------------

    def sublayer(self, name: str, norm: str, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        if self.family == "mbart":
            normed = self.ln(norm, x)
            return x + self.attention(name, normed, *_source(rest, normed))
        return self.ln(norm, x + self.attention(name, x, *_source(rest, x)))

    def embed(self, stack: str, ids: torch.Tensor) -> torch.Tensor:
        factor = self.d**0.5 if self.family == "mbart" else 1.0
        words = self.s["model.shared.weight"][ids] * factor
        x = words + self.s[f"model.{stack}.embed_positions.weight"][2 : ids.size(1) + 2]
        if stack == "encoder" and self.o["attn_mode"] == "prompt_tuning":  # section 7
            x = torch.cat([self.prompt().expand(ids.size(0), -1, -1), x], 1)
        return self.ln(f"model.{stack}.layernorm_embedding", x)

    def prompt(self) -> torch.Tensor:
        return self.s["model.encoder.ef_prefix_emb.weight"]

    def padding(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the additive mask, [B, 1, 1, S], in which the prompt is visible."""
        if self.o["attn_mode"] == "prompt_tuning":
            mask = F.pad(mask, (self.prompt().size(0), 0), value=1)
        hidden = -1e4 if self.family == "roberta" else float("-inf")
        return torch.zeros(mask.shape, dtype=self.dtype()).masked_fill(mask == 0, hidden)[
            :, None, None
        ]

    def dtype(self) -> torch.dtype:
        return self.s[self._word_embedding()].dtype

    def logits(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.classify(given) if self.family == "roberta" else self.translate(given)

    def translate(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        padding = self.padding(given["attention_mask"])
        x = self.embed("encoder", given["input_ids"])
        for i in range(2):
            layer = f"model.encoder.layers.{i}"
            norm = f"{layer}.self_attn_layer_norm"
            x = self.sublayer(f"{layer}.self_attn", norm, x, None, padding, "encoder")
            x = self.ffn(layer, x)
        encoded = self.ln("model.encoder.layer_norm", x) if self.family == "mbart" else x
        y = self.embed("decoder", given["decoder_input_ids"])
        causal = torch.full((y.size(1),) * 2, float("-inf"), dtype=self.dtype()).triu(1)
        for i in range(2):
            layer = f"model.decoder.layers.{i}"
            norm = f"{layer}.self_attn_layer_norm"
            y = self.sublayer(f"{layer}.self_attn", norm, y, None, causal, "self")
            norm = f"{layer}.encoder_attn_layer_norm"
            y = self.sublayer(f"{layer}.encoder_attn", norm, y, encoded, padding, "cross")
            y = self.ffn(layer, y)
        y = self.ln("model.decoder.layer_norm", y) if self.family == "mbart" else y
        return y @ self.s["model.shared.weight"].T

    def classify(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, table = given["input_ids"], "roberta.embeddings"
        seen = (ids != 1).long()
        positions = seen.cumsum(1) * seen + 1
        x = self.s[f"{table}.word_embeddings.weight"][ids]
        x = x + self.s[f"{table}.position_embeddings.weight"][positions]
        x = x + self.s[f"{table}.token_type_embeddings.weight"][0]
        prompted = self.o["attn_mode"] == "prompt_tuning"
        if prompted:  # not in the official code: as in BART's encoder, <s> still classifies
            x = torch.cat([self.prompt().expand(ids.size(0), -1, -1), x], 1)
        x = self.ln(f"{table}.LayerNorm", x)
        padding = self.padding(given["attention_mask"])
        for i in range(2):
            layer = f"roberta.encoder.layer.{i}"
            o = self.attention(f"{layer}.attention", x, x, padding, "self")
            x = self.ffn(layer, self.ln(f"{layer}.attention.output.LayerNorm", o + x))
        first = x[:, self.prompt().size(0) if prompted else 0]
        return self.linear("classifier.out_proj", self.linear("classifier.dense", first).tanh())

    def loss(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self.logits(given)
        return F.cross_entropy(logits.flatten(0, -2), given["labels"].flatten())


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _source(rest: tuple[Any, ...], x: torch.Tensor) -> tuple[Any, ...]:
    return (x if rest[0] is None else rest[0], *rest[1:])
