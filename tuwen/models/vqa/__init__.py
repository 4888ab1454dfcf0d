"""From a picture and a question to an answer: the joint embedding as published, and a transformer that fuses both."""

from __future__ import annotations

from tuwen.models.vqa.ensemble import Ensemble, members_of
from tuwen.models.vqa.fusion import FusionTransformer
from tuwen.models.vqa.joint import JointEmbedding

__all__ = ["Ensemble", "FusionTransformer", "JointEmbedding", "members_of"]
