"""From a picture's features to a sentence: Show and Tell as published, and a transformer that attends to regions."""

from __future__ import annotations

from tuwen.models.captioning.common import Captions
from tuwen.models.captioning.show_tell import ShowTell
from tuwen.models.captioning.transformer import TransformerCaptioner

__all__ = ["Captions", "ShowTell", "TransformerCaptioner"]
