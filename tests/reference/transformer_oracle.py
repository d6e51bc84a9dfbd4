"""Float64 NumPy oracle of the spectrogram diffusion transformer.

One example at a time, one head at a time, keys that may not be attended to are
taken out rather than masked; parameters are looked up by their published paths.
"""

from __future__ import annotations

import numpy as np


class Oracle:
    """The equations of the published models, for one flat dictionary of parameters."""

    def __init__(self, params: dict[str, np.ndarray], *, num_heads: int, max_time: float):
        self.params = {path: np.asarray(x, np.float64) for path, x in params.items()}
        self.num_heads = num_heads
        self.max_time = max_time

    def p(self, *path: str) -> np.ndarray:
        return self.params["/".join(path)]

    def layers(self, stack: str) -> list[str]:
        names = {path.split("/")[1] for path in self.params if path.startswith(stack + "/layers_")}
        return [f"{stack}/layers_{i}" for i in range(len(names))]

    def norm(self, x, path):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * self.p(path, "scale")

    def attention(self, x, source, allowed, path):
        """x [Q E], source [N E], allowed [N] bool → [Q E]."""
        source = source[allowed]
        if len(source) == 0:
            return np.zeros_like(x)
        q, k, v = (
            np.split(a @ self.p(path, name, "kernel"), self.num_heads, axis=1)
            for a, name in ((x, "query"), (source, "key"), (source, "value"))
        )
        heads = []
        for head in range(self.num_heads):
            e = np.exp(q[head] @ k[head].T)  # no division by sqrt(head_dim)
            heads.append(e / e.sum(axis=1, keepdims=True) @ v[head])
        return np.concatenate(heads, axis=1) @ self.p(path, "out", "kernel")

    def mlp(self, x, path):
        a = x @ self.p(path, "wi_0", "kernel")
        gelu = 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
        return (gelu * (x @ self.p(path, "wi_1", "kernel"))) @ self.p(path, "wo", "kernel")

    def film(self, x, conditioning, path):
        both = conditioning @ self.p(path, "DenseGeneral_0", "kernel")
        half = x.shape[1]
        return x * (1 + both[:half]) + both[half:]

    def encoder(self, x, allowed, stack):
        for layer in self.layers(stack):
            h = self.norm(x, f"{layer}/pre_attention_layer_norm")
            x = x + self.attention(h, h, allowed, f"{layer}/attention")
            x = x + self.mlp(self.norm(x, f"{layer}/pre_mlp_layer_norm"), f"{layer}/mlp")
        return self.norm(x, f"{stack}/encoder_norm")

    def encode_tokens(self, tokens):
        table = self.p("token_encoder/token_embedder/embedding")
        positions = self.p("token_encoder/Embed_0/embedding")
        x = np.stack([table[token] + positions[i] for i, token in enumerate(tokens)])
        return self.encoder(x, tokens > 0, "token_encoder")

    def encode_context(self, mel, mask):
        x = mel @ self.p("continuous_encoder/input_proj/kernel")
        table = self.p("continuous_encoder/Embed_0/embedding")
        x = x + np.roll(table, int(mask.sum()), axis=0)
        return self.encoder(x, mask > 0, "continuous_encoder")

    def time_embedding(self, time, features):
        n = features // 2
        timescales = np.geomspace(1.0, self.max_time, n)
        angle = time * self.max_time / timescales
        x = np.concatenate([np.sin(angle), np.cos(angle)])
        for name in ("time_emb_dense0", "time_emb_dense1"):
            x = x @ self.p("decoder", name, "kernel")
            x = x / (1 + np.exp(-x))  # swish
        return x

    def decode(self, z, time, encodings, allowed):
        x = z @ self.p("decoder/continuous_inputs_projection/kernel")
        x = x + self.p("decoder/Embed_0/embedding")
        conditioning = self.time_embedding(time, x.shape[1])
        everything = np.ones(len(x), bool)
        for layer in self.layers("decoder"):
            h = self.norm(x, f"{layer}/pre_self_attention_layer_norm")
            h = self.film(h, conditioning, f"{layer}/FiLMLayer_0")
            x = x + self.attention(h, h, everything, f"{layer}/self_attention")
            h = self.norm(x, f"{layer}/pre_cross_attention_layer_norm")
            x = x + self.attention(
                h, encodings, allowed, f"{layer}/MultiHeadDotProductAttention_0")
            h = self.norm(x, f"{layer}/pre_mlp_layer_norm")
            x = x + self.mlp(self.film(h, conditioning, f"{layer}/FiLMLayer_1"), f"{layer}/mlp")
        x = self.norm(x, "decoder/decoder_norm")
        return x @ self.p("decoder/spec_out_dense/kernel")

    def __call__(self, z, time, tokens, context=None, context_mask=None):
        """Batched arrays in, [B T F] out."""
        out = []
        for i in range(len(z)):
            encodings, allowed = self.encode_tokens(tokens[i]), tokens[i] > 0
            if context is not None:
                more = self.encode_context(context[i].astype(np.float64), context_mask[i])
                encodings = np.concatenate([encodings, more])
                allowed = np.concatenate([allowed, context_mask[i] > 0])
            out.append(self.decode(z[i].astype(np.float64), float(time[i]), encodings, allowed))
        return np.stack(out)
