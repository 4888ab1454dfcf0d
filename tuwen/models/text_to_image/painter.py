"""Drawing in one pass: a sentence, its vector, a generator; a critic beside it where the loss is adversarial."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuwen.models.text_to_image.critic import Critic, frozen
from tuwen.models.text_to_image.gan import Generator
from tuwen.models.text_to_image.published import Decoder
from tuwen.models.text_to_image.words import BertEncoder, SmallEncoder


class Conditioning(nn.Module):
    """Conditioning augmentation (Zhang et al., StackGAN, ICCV 2017): a sentence becomes a Gaussian."""

    def __init__(self, told: int, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(told, 2 * width)

    def forward(self, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """(B, told) -> mean (B, W), log variance (B, W)."""
        mean, log_variance = self.both(sentences).float().chunk(2, -1)
        return mean, log_variance


class Painter(nn.Module):
    """Text encoder -> generator, with what its losses ask for.

    Args:
        conditioning: the sentence's vector, drawn anew each time while training; None: taken as it is.
        critic: judges or matches pictures while training; None where the loss looks at pixels alone.
        penalised: whether the critic's gradient at true pairs is wanted (DF-GAN's matching-aware penalty).
    """

    def __init__(
        self,
        text: SmallEncoder | BertEncoder,
        generator: Decoder | Generator,
        *,
        size: int = 64,
        conditioning: Conditioning | None = None,
        critic: Critic | None = None,
        judges: bool = False,
        matches: bool = False,
        penalised: bool = False,
    ) -> None:
        super().__init__()
        self.text, self.generator, self.conditioning, self.critic = text, generator, conditioning, critic
        self.size, self.noise_shape = size, (generator.noise,)
        self.judges, self.matches, self.penalised = judges, matches, penalised

    def forward(self, pictures: Tensor, ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """What the losses of a batch are made of; pictures (B, 3, S, S) in [-1, 1], a sentence each.

        `drawn` (B, 3, S, S); `mean` and `log_variance` of the conditioning; of a critic the logits (B,) `real`, `wrong`
        (a true picture with another's sentence), `fake` (trains the critic) and `fooled` (trains the generator), and
        `slope` (B,), the norm of its gradient at true pairs; of a matching one `true_match` and `drawn_match` (B, B).
        The critic's side never moves the generator, nor the generator's the critic.
        """
        sentences = self.text(ids, lengths).mean
        out: dict[str, Tensor] = {}
        told = sentences
        if self.conditioning is not None:
            mean, log_variance = self.conditioning(sentences)
            told = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            out |= {"mean": mean, "log_variance": log_variance}
        noise = torch.randn(len(ids), *self.noise_shape, device=ids.device)
        out["drawn"] = self.generator(torch.cat([told, noise], 1))
        if self.critic is not None:
            out |= self._criticise(self.critic, pictures, out["drawn"], sentences)
        return out

    def _criticise(self, critic: Critic, pictures: Tensor, drawn: Tensor, sentences: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        held = sentences.detach()
        if self.penalised:
            pictures, held = pictures.requires_grad_(), held.clone().requires_grad_()
        seen = critic.eye(pictures)
        if self.judges:
            out["real"] = critic.judge(seen, held)
            out["wrong"] = critic.judge(seen, held.roll(1, 0))
            out["fake"] = critic(drawn.detach(), held)
            out["fooled"] = frozen(critic, "judge", drawn, held)
        if self.penalised:
            slopes = torch.autograd.grad(out["real"].float().sum(), (pictures, held), create_graph=True)
            out["slope"] = sum((s.float().flatten(1).norm(dim=1) for s in slopes), torch.zeros(()))
        if self.matches:  # this trains the text encoder too
            out["true_match"] = critic.match(seen, sentences)
            out["drawn_match"] = frozen(critic, "match", drawn, held)
        return out

    def draw(
        self, ids: Tensor, lengths: Tensor, noise: Tensor, *, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """(B, T) ids, (B,) lengths, (B, *noise_shape) noise -> (B, 3, S, S) in [-1, 1], in one step."""
        told = self.text(ids, lengths).mean
        if self.conditioning is not None:
            told = self.conditioning(told)[0]
        drawn: Tensor = self.generator(torch.cat([told, noise], 1))
        return drawn
