"""Picture and text towers by name."""

from __future__ import annotations

import re
from pathlib import Path

from tuwen.errors import ConfigError, suggest
from tuwen.towers.top import Top
from tuwen.towers.tower import Body, Pooled, Tower, freeze, thaw
from tuwen.towers.words import TextTower, build_text_tower

__all__ = [
    "NAMES",
    "Body",
    "Pooled",
    "TextTower",
    "Top",
    "Tower",
    "build_text_tower",
    "build_tower",
    "freeze",
    "thaw",
]

LITES = ("lite0", "lite1", "lite2", "lite3", "lite4")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NAMES = (*LITES, *RESNETS, "mobilenet-v1", "vgg19", "plain", "twofold")


def build_tower(name: str, size: int | None = None, pretrained: bool = True, weights: Path | None = None) -> Tower:
    """A picture tower in evaluation mode, on the CPU.

    Args:
        name: one of `NAMES`, or `hf:` and a hub name or a local folder (CLIP, SigLIP, Chinese-CLIP, DINOv2, ...).
        size: the side of its square input; None: its makers'.
        pretrained: False downloads nothing and starts at random.
        weights: a local state dict to load instead: safetensors, or a `.pth` of tensors alone.

    Raises:
        ConfigError: no such tower.
        ModelError: its weights are missing, unsafe, or of another tower.
    """
    if name.startswith("hf:"):
        from tuwen.towers.hub import build_hub

        if weights is not None:
            raise ConfigError(f"{name}: its folder holds its weights; give no other")
        return build_hub(name.removeprefix("hf:"), size, pretrained).eval()
    if name not in NAMES:
        raise ConfigError(f"there is no tower '{name}'{suggest(name, NAMES)}; known: {', '.join(NAMES)}, hf:NAME")
    if name in LITES:
        from tuwen.towers.lite import build_lite

        return build_lite(int(name[-1]), size, pretrained, weights).eval()
    if name in ("plain", "twofold"):
        from tuwen.towers.plain import build_plain

        return build_plain(name, size, pretrained, weights).eval()
    if name == "vgg19":
        from tuwen.towers.vgg import build_vgg

        return build_vgg(size, pretrained, weights).eval()
    from tuwen.towers.hub import build_mobilenet, build_resnet

    if name == "mobilenet-v1":
        return build_mobilenet(size, pretrained, weights).eval()
    return build_resnet(int(re.sub(r"\D", "", name)), size, pretrained, weights).eval()
