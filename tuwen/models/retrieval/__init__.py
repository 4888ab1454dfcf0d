"""Two encoders into one space: VSE++ and CMPM/CMPC as published, and the stronger one that is shipped."""

from tuwen.models.retrieval.adapter import Adapter
from tuwen.models.retrieval.attentive import AttentivePicture
from tuwen.models.retrieval.cross import Cross, grid_features, word_states
from tuwen.models.retrieval.dual import DualEncoder
from tuwen.models.retrieval.ensemble import Ensemble, join, members_of
from tuwen.models.retrieval.hubs import EXTRA, Hubs
from tuwen.models.retrieval.picture import PictureEncoder
from tuwen.models.retrieval.sentence import BertEncoder, RecurrentEncoder

__all__ = [
    "EXTRA",
    "Adapter",
    "AttentivePicture",
    "BertEncoder",
    "Cross",
    "DualEncoder",
    "Ensemble",
    "Hubs",
    "PictureEncoder",
    "RecurrentEncoder",
    "grid_features",
    "join",
    "members_of",
    "word_states",
]
