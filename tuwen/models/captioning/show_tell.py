"""Show and Tell (Vinyals et al., CVPR 2015): the picture is the first word that an LSTM reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tuwen.decode import State
from tuwen.layers import length_mask, silence
from tuwen.models.captioning.common import Captions


class ShowTell(nn.Module):
    """Pooled features -> linear -> the first input of an LSTM; there is no start word.

    Args:
        in_width: channels of the features.
        vocabulary: words in and out; row `pad` of the embedding stays zero.
        silent: words that are never said, such as the unknown one.
        tied: one matrix for words in and words out (Press and Wolf, EACL 2017); needs embedding = width.
    """

    def __init__(
        self,
        in_width: int,
        vocabulary: int,
        width: int = 256,
        embedding: int = 256,
        *,
        layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        pad: int = 0,
        silent: Sequence[int] = (),
        tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if tied and embedding != width:
            raise ValueError(f"tied words need embedding = width, not {embedding} and {width}")
        self.tower, self.silent = tower, list(silent)
        self.project = nn.Linear(in_width, embedding)
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=pad)
        self.rnn = nn.LSTM(embedding, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, vocabulary)
        if tied:
            nn.init.normal_(self.embedding.weight, std=width**-0.5)  # as words out they must not start with wild logits
            with torch.no_grad():
                self.embedding.weight[pad].zero_()
            self.output.weight = self.embedding.weight

    def read(self, pictures: Tensor) -> Tensor:
        """Pixels (P, S, S, 3) uint8, or features (P, N, D) -> the picture as a word (P, E)."""
        if self.tower is not None:
            pictures = self.tower.pooled(pictures)[:, None]  # type: ignore[operator]
        projected: Tensor = self.project(self.dropout(pictures.mean(1)))
        return projected

    def forward(self, pictures: Tensor, captions: Captions) -> dict[int, Tensor]:
        """Logits of every word of a picture's captions, given those before it.

        `captions` by language (which has no part in it): `ids` (P, K, T), end words included, and `lengths` (P, K), 0
        where a picture has fewer. Returns (M, V) by language: M = lengths.sum(), caption after caption.
        """
        seen = self.read(pictures)
        return {lang: self._logits(seen, ids, lengths) for lang, (ids, lengths) in captions.items()}

    def _logits(self, seen: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        rows, sizes = ids.flatten(0, 1), lengths.flatten()  # (P K, T), (P K,)
        spoken = sizes > 0
        seen = seen.repeat_interleave(ids.shape[1], 0)[spoken]  # (R, E)
        rows, sizes = rows[spoken], sizes[spoken]
        words = self.dropout(self.embedding(rows[:, :-1]))
        inputs = torch.cat([seen[:, None], words], 1)  # (R, T, E): the picture, then all words but the last
        packed = pack_padded_sequence(inputs, sizes.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=rows.shape[1])
        logits: Tensor = self.output(self.dropout(states[length_mask(sizes, rows.shape[1])]))
        return logits

    def stepper(self, pictures: Tensor, lang: int = 0) -> ShowTellStepper:
        """For `tuwen.decode`."""
        return ShowTellStepper(self, self.read(pictures))

    def attend(self, pictures: Tensor, ids: Tensor, lang: int = 0) -> None:
        """This model sees a picture once, as a whole: there is no attention to show."""
        return


class ShowTellStepper:
    """The state of a decoding: what the LSTM remembers, (B, K, layers, width) each."""

    def __init__(self, model: ShowTell, seen: Tensor) -> None:
        self.model, self.seen = model, seen  # (B, E)

    def start(self) -> tuple[Tensor, State]:
        count, layers, width = len(self.seen), self.model.rnn.num_layers, self.model.rnn.hidden_size
        blank = self.seen.new_zeros(count, 1, layers, width)
        return self._run(self.seen[:, None], {"hidden": blank, "cell": blank})

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        return self._run(self.model.embedding(ids), state)

    def _run(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        count, beams, width = inputs.shape
        before = tuple(state[name].flatten(0, 1).transpose(0, 1).contiguous() for name in ("hidden", "cell"))
        out, after = self.model.rnn(inputs.reshape(count * beams, 1, width), before)
        logits = silence(self.model.output(out[:, 0]).view(count, beams, -1), self.model.silent)
        hidden, cell = (part.transpose(0, 1).unflatten(0, (count, beams)) for part in after)
        return logits, {"hidden": hidden, "cell": cell}
