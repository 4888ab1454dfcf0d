"""From a sentence to a picture: the published decoder, a one-stage GAN, and a small flow."""

from __future__ import annotations

from tuwen.models.text_to_image.critic import Critic, Eye
from tuwen.models.text_to_image.flow import FlowUNet, Sampling
from tuwen.models.text_to_image.gan import Generator
from tuwen.models.text_to_image.painter import Conditioning, Painter
from tuwen.models.text_to_image.published import Decoder
from tuwen.models.text_to_image.sampling import METHODS, Method, integrate, times
from tuwen.models.text_to_image.words import BertEncoder, SmallEncoder, Told

__all__ = [
    "METHODS",
    "BertEncoder",
    "Conditioning",
    "Critic",
    "Decoder",
    "Eye",
    "FlowUNet",
    "Generator",
    "Method",
    "Painter",
    "Sampling",
    "SmallEncoder",
    "Told",
    "integrate",
    "times",
]
