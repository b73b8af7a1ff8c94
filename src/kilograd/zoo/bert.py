"""A small BERT that classifies sequences of tokens."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from kilograd.errors import InputError
from kilograd.zoo.model import ZooModel

Attention = Literal["functional", "module", "encoder"]


class _Attention(nn.Module):
    """Self-attention written out: one linear layer for queries, keys and values, one behind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, T, width] to the same shape."""
        n, length, width = x.shape
        shape = (n, length, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        y = functional.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.out(y.transpose(1, 2).reshape(n, length, width))
        return mixed


class _Block(nn.Module):
    """Attention and a feed-forward network, each with a residual sum and layer norm behind it.

    Vaswani et al., "Attention is all you need", 2017, figure 1, left; GELU as in BERT.
    """

    def __init__(self, width: int, heads: int, hidden: int, attention: Attention) -> None:
        super().__init__()
        self.attention: nn.Module
        if attention == "module":
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        else:
            self.attention = _Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, T, width] to the same shape."""
        if isinstance(self.attention, nn.MultiheadAttention):
            mixed, _ = self.attention(x, x, x, need_weights=False)
        else:
            mixed = self.attention(x)
        x = self.norm1(x + mixed)
        y: Tensor = self.norm2(x + self.feed_forward(x))
        return y


class Bert(ZooModel):
    """Token ids [N, sequence] -> logits [N, num_classes].

    Devlin et al., "BERT", 2019, in the size of "BERT-tiny" (Turc et al., "Well-read students learn
    better", 2019): 2 layers, width 128, 2 heads, feed-forward width 512. No segment embedding, as
    there is one segment; the first token's vector goes through a tanh layer into the classifier.
    The vocabulary is small by default; BERT's own has 30,522 tokens.
    """

    def __init__(
        self,
        num_classes: int = 2,
        vocabulary: int = 1024,
        sequence: int = 32,
        width: int = 128,
        heads: int = 2,
        layers: int = 2,
        hidden: int | None = None,
        attention: Attention = "functional",
    ) -> None:
        """`hidden` is the feed-forward width, by default four times `width`. `attention` says what
        the layers are made of: linear layers and `scaled_dot_product_attention` ("functional"),
        `nn.MultiheadAttention` ("module"), or `nn.TransformerEncoderLayer` ("encoder").
        """
        super().__init__()
        if attention not in ("functional", "module", "encoder"):
            raise InputError(f"attention={attention!r}: there are functional, module and encoder")
        hidden = 4 * width if hidden is None else hidden
        self.input_shape = (sequence,)
        self.vocabulary = vocabulary
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(sequence, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, activation="gelu", batch_first=True)
            if attention == "encoder"
            else _Block(width, heads, hidden, attention)
            for _ in range(layers)
        )
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, num_classes)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids [N, sequence] to logits [N, num_classes]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.tokens(ids) + self.positions(positions))
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.classifier(torch.tanh(self.pooler(x[:, 0])))
        return y
