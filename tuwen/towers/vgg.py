"""VGG19 (Simonyan and Zisserman 2015), in torchvision's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from tuwen.checkpoint import read_tensors
from tuwen.images import View
from tuwen.towers.hub import IMAGENET, hub_file
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

HUB = "timm/vgg19.tv_in1k"  # torchvision's weights as safetensors
PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)  # 0: halve


class VggBody(Body):
    """The last map is conv5_4 before its pooling, (B, 512, S/16, S/16); `pool` is fc7, (B, 4096)."""

    def __init__(self, plan: Sequence[int] = PLAN, width: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in plan:
            if out:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, width), nn.ReLU()
        )
        self.grid_width, self.pooled_width = channels, width

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.features(x)
        return last

    def pool(self, last: Tensor) -> Tensor:
        x = F.max_pool2d(last, 2)
        if x.shape[-2:] != (7, 7):
            x = F.adaptive_avg_pool2d(x, 7)
        out: Tensor = self.classifier(x.flatten(1))
        return out


def build_vgg(size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """VGG19, ImageNet: from the hub (timm's safetensors), or from a local torchvision `.pth`."""
    body = VggBody()
    if weights is None and pretrained:
        weights = hub_file(HUB, "model.safetensors")
    if weights is not None:
        fill(body, from_published(read_tensors(weights)), str(weights))
    mean, std = ([255 * value for value in values] for values in IMAGENET)
    return Tower("vgg19", body, size or 224, mean, std, View("center"))


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's or timm's state dict without its last layer, fc6 and fc7 as linear layers."""
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    out = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in ("classifier.6", "head.fc"):
            out[f"{names.get(layer, layer)}.{kind}"] = value.flatten(1) if layer in names and value.ndim == 4 else value
    return out
