"""Small parts that several models share: masks, pooling over sets, recurrent runs by length, FCNet.

A mask is bool (B, N), true where an item exists. A row without any item pools to zeros, never to NaN.

For a moving average of the weights nothing of our own is needed: `torch.optim.swa_utils.AveragedModel(model,
multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """Bool (B, width), true before each of `lengths` (B,)."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def widen(x: Tensor) -> Tensor:
    """`x` in float32 where it came in half precision, else as it is: fp16 sums overflow at 65,504."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def l2_normalise(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`x` with its last axis at length 1, in float32 at least; what is under `eps` is divided by `eps`."""
    return F.normalize(widen(x), dim=-1, eps=eps)


def silence(logits: Tensor, words: Sequence[int]) -> Tensor:
    """`logits` (..., V) with those of `words` at minus infinity."""
    return logits.index_fill(-1, torch.tensor(words, device=logits.device, dtype=torch.long), -torch.inf)


# Pooling over items: (B, N, D), mask (B, N) -> (B, D)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the items of each row, (B, N, D) -> (B, D)."""
    return x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Maximum over the items of each row, channel by channel, (B, N, D) -> (B, D). Padding is never seen."""
    best = x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).amax(1)
    return best.masked_fill(~mask.any(1, keepdim=True), 0)


def topk_mean(x: Tensor, mask: Tensor, k: int) -> Tensor:
    """Mean of the `k` largest values of each channel, of all where a row has fewer, (B, N, D) -> (B, D)."""
    k = min(k, x.shape[1])
    best = x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).topk(k, dim=1).values  # (B, k, D)
    found = mask.sum(1).clamp(max=k)
    return masked_mean(best, length_mask(found, k))


class GPO(nn.Module):
    """Generalised pooling operator (Chen et al., VSE-infinity, CVPR 2021).

    Sorts the items of each channel, largest first, and takes a weighted sum by place: mean (equal weights),
    max (all weight first) and top-k lie in between and are learned. A bidirectional GRU over the sinusoidal
    code of the places gives the weights, which depend on the number of items alone; the mean of its two
    directions goes through one linear unit and a softmax at temperature 0.1, as in the authors' code.
    """

    def __init__(self, code_width: int = 32, hidden: int = 32, temperature: float = 0.1) -> None:
        super().__init__()
        self.code_width, self.temperature = code_width, temperature
        self.rnn = nn.GRU(code_width, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Linear(hidden, 1, bias=False)

    def coefficients(self, lengths: Tensor, width: int) -> Tensor:
        """Weights by place (U, width) for sets of `lengths` (U,) items: rows sum to 1, and are 0 past the
        end.

        For an exported graph make the table once: `coefficients(arange(1, width + 1), width)`, row n - 1 for
        n items.
        """
        lengths = lengths.clamp(min=1)
        codes = place_codes(width, self.code_width, self.score.weight)
        outputs, _ = encode_sequence(self.rnn, codes.expand(len(lengths), -1, -1), lengths)  # (U, width, 2 hidden)
        both = outputs.view(*outputs.shape[:2], 2, -1).mean(2)  # (U, width, hidden)
        scores = widen(F.linear(both, self.score.weight)[..., 0]) / self.temperature
        return scores.masked_fill(~length_mask(lengths, width), -torch.inf).softmax(1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x` (B, N, D), `mask` (B, N) anywhere, not only at the end (None: all items exist) -> (B, D)."""
        if mask is None:
            weights = self.coefficients(torch.full((1,), x.shape[1], device=x.device), x.shape[1])  # (1, N)
            return torch.einsum("n,bnd->bd", weights[0].to(x.dtype), x.sort(1, descending=True).values)
        # One run of the GRU for each length that occurs, not for each row.
        unique, which = torch.unique(mask.sum(1), return_inverse=True)
        weights = self.coefficients(unique, x.shape[1])[which].to(x.dtype)  # (B, N)
        ordered = x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).sort(1, descending=True).values
        ordered = ordered.masked_fill(~length_mask(mask.sum(1), x.shape[1])[..., None], 0)
        return torch.einsum("bn,bnd->bd", weights, ordered)


def place_codes(count: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal codes of places (Vaswani et al. 2017), (count, width) of the type and device of `like`."""
    if width % 2:
        raise ValueError(f"place codes need an even width, not {width}")
    place = torch.arange(count, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.stack([(place * rate).sin(), (place * rate).cos()], dim=-1).flatten(1).to(like.dtype)


class AttentionPool(nn.Module):
    """Pooling by learned queries (Lin et al., A structured self-attentive sentence embedding, ICLR 2017).

    Each of `queries` gives every item a score, `score(tanh(hidden(x)))`, and takes the softmax-weighted mean.
    """

    def __init__(self, width: int, queries: int = 1, hidden: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, queries, bias=False)

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention (B, Q, N) over the items of `x` (B, N, D): sums to 1, or 0 where a row has no item."""
        scores = widen(F.linear(torch.tanh(self.hidden(x)), self.score.weight)).transpose(1, 2)  # (B, Q, N)
        if mask is None:
            return scores.softmax(-1).to(x.dtype)
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        return scores.softmax(-1).masked_fill(~mask[:, None], 0).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x` (B, N, D) -> (B, Q, D)."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)  # padding may hold anything, and 0 x inf is NaN
        return self.weights(x, mask) @ x


# Sequences


def encode_sequence(
    rnn: nn.GRU | nn.LSTM, embedded: Tensor, lengths: Tensor, padded: bool = False
) -> tuple[Tensor, Tensor]:
    """Runs `rnn` over each row of `embedded` (B, T, D) to its own length in `lengths` (B,).

    Returns the outputs (B, T, H x directions), 0 from each length on, and the last state of the top layer (B,
    H x directions): the forward one after the last word, the backward one after the first. Every row is what
    it would be alone; one of length 0 gives zeros. `padded` gives the same without packing, which no ONNX
    exporter can follow in two directions; it is slower, and skips the dropout between layers.
    """
    if not rnn.batch_first:
        raise ValueError("encode_sequence takes a recurrent layer made with batch_first=True")
    width, lengths = embedded.shape[1], lengths.to(embedded.device)
    if padded:
        outputs = _run_padded(rnn, embedded, lengths)
    else:
        packed = pack_padded_sequence(embedded, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=width)
    mask = length_mask(lengths, width)
    outputs = outputs.masked_fill(~mask[..., None], 0)
    ends = (mask.sum(1) - 1).clamp(min=0)[:, None, None].expand(-1, 1, outputs.shape[2])
    last = outputs.gather(1, ends)[:, 0]  # (B, H x directions)
    if rnn.bidirectional:
        last = torch.cat([last[:, : rnn.hidden_size], outputs[:, 0, rnn.hidden_size :]], dim=1)
    return outputs, last


def _run_padded(rnn: nn.GRU | nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """Outputs (B, T, H x directions) of a run over the padding too, which comes last in both directions.

    For the backward one each row is turned round within its own length: nothing that is read comes after
    padding.
    """
    place = torch.arange(x.shape[1], device=x.device)
    turned = torch.where(length_mask(lengths, x.shape[1]), lengths[:, None] - 1 - place, place)  # (B, T)
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    directions = 2 if rnn.bidirectional else 1
    start = x.new_zeros(1, x.shape[0], rnn.hidden_size)
    for layer in range(rnn.num_layers):
        sides = []
        for side in range(directions):
            weights: list[Tensor] = [*rnn.all_weights[directions * layer + side]]
            inward = x[row, turned] if side else x
            # One layer, no dropout, not training, one direction, batch first.
            if isinstance(rnn, nn.LSTM):
                out = torch.lstm(inward, (start, start), weights, rnn.bias, 1, 0.0, False, False, True)[0]
            else:
                out = torch.gru(inward, start, weights, rnn.bias, 1, 0.0, False, False, True)[0]
            sides.append(out[row, turned] if side else out)
        x = torch.cat(sides, dim=-1)
    return x


def drop_items(
    x: Tensor, mask: Tensor, rate: float, fill: float = 0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Drops each item with probability `rate`: words (ids (B, N)) or regions (features (B, N, D)).

    Returns `x` and `mask` of the same shapes with the survivors moved to the front in their order and `fill`
    (the padding id) behind, so that `mask.sum(1)` are lengths again. A row that had an item keeps at least
    one.
    """
    if not rate:
        return x, mask
    luck = torch.rand(mask.shape, generator=generator, device=mask.device).masked_fill(~mask, -1.0)
    keep = luck >= rate
    # The luckiest item stays in any case; where any other stayed, it had stayed too.
    keep = keep.scatter(1, luck.argmax(1, keepdim=True), True) & mask
    order = (~keep).long().argsort(dim=1, stable=True)
    kept = keep.gather(1, order)
    shape = (*mask.shape, *(1,) * (x.dim() - 2))
    moved = x.gather(1, order.view(shape).expand_as(x))
    return moved.masked_fill(~kept.view(shape), fill), kept


# Layers


class FCNet(nn.Sequential):
    """Weight-normalised linear layers, dropout before and a ReLU behind each, `widths[0]` -> `widths[-1]`.

    The non-linear layer of bottom-up attention VQA's public code (one norm a matrix: `dim=None`).
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            if dropout:
                layers.append(nn.Dropout(dropout))
            layers += [weight_norm(nn.Linear(before, after), dim=None), nn.ReLU()]  # type: ignore[arg-type]
        super().__init__(*layers)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """`x` unchanged; its gradient is reversed and times `strength` (Ganin and Lempitsky, ICML 2015)."""
    reversed_: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


# Attention


def attention_weights(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis of `scores` (..., N), in float32; padding gets 0, also where all is padding."""
    scores = scores.float()
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) with keys and values that are made apart, so that they can be kept.

    Written out, not `scaled_dot_product_attention`: in bf16 on a CPU this is several times faster (torch 2.13).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, H, T, W / H)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def make_keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, W) -> keys and values (B, H, N, W / H)."""
        keys, values = self.keys(memory).chunk(2, -1)
        return self.split(keys), self.split(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, W) over keys (B, H, N, W / H) -> (B, T, W) and weights (B, H, T, N); `mask` True where to look."""
        query = self.split(self.query(x))
        weights = attention_weights((query @ keys.transpose(2, 3)).float() / math.sqrt(query.shape[-1]), mask)
        mixed = weights.to(values.dtype) @ values  # (B, H, T, W / H)
        return self.out(mixed.transpose(1, 2).flatten(2)), weights
