"""The embedded towers, and what training may change of a tower."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from tuwen.errors import ConfigError
from tuwen.images import View
from tuwen.towers import NAMES, Tower, build_tower, freeze, thaw


def pixels(size: int, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("name", "size", "side"), [("lite0", 64, 2), ("lite0", 100, 4), ("lite2", 65, 3)])
def test_lite_is_the_package_with_dynamic_padding(name: str, size: int, side: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    tower = build_tower(name, size=size)
    plain = EfficientNet.from_name(f"efficientnet-{name[:-1]}{name[-1]}", image_size=None)
    plain.load_state_dict(tower.body.net.state_dict(), strict=False)  # type: ignore[union-attr, operator]
    with torch.inference_mode():
        grid, pooled = tower(pixels(size)), tower.pooled(pixels(size))
        last = plain.eval().extract_features((pixels(size).permute(0, 3, 1, 2).float() - 127) / 128)
    assert grid.shape == (2, side * side, tower.grid_width)
    assert torch.allclose(grid, last.flatten(2).transpose(1, 2), atol=1e-5)
    assert torch.allclose(pooled, last.mean((2, 3)), atol=1e-5)
    assert grid.std() > 0.1


def test_defaults_and_hash() -> None:
    tower, other = build_tower("lite0"), build_tower("lite0", size=64)
    assert (tower.size, tower.view, tower.pooled_width, tower.training) == (224, View(), 1280, False)
    assert build_tower("lite2", pretrained=False).size == 260
    assert tower.sha256 == other.sha256
    assert tower.transform != other.transform
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-3
    assert tower.sha256 != other.sha256


def test_frozen_stays_frozen_and_batchnorm_stays_fixed() -> None:
    tower = build_tower("lite0", size=32, pretrained=False)
    around = nn.ModuleList([freeze(tower)]).train()
    assert around.training
    assert not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())

    thaw(tower)
    norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    around.train()
    assert tower.training
    tower(pixels(32)).square().sum().backward()
    assert len(before) > 40
    assert all(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))
    reached = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not reached

    thaw(tower, fixed_batchnorm=False)(pixels(32))
    assert not any(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'vgg19'"):
        build_tower("vg19")
    assert len({*NAMES}) == len(NAMES)


def test_nothing_pulls_torchvision_in() -> None:
    assert isinstance(build_tower("resnet18", size=32, pretrained=False), Tower)
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize(("tail", "width"), [(0, 320), (1, 192), (3, 192)])
def test_a_beheaded_tower_and_its_top_are_the_whole(tail: int, width: int) -> None:
    whole, cut = build_tower("lite0", size=96), build_tower("lite0", size=96)
    top = cut.behead(tail)
    with torch.inference_mode():
        grid = cut(pixels(96))
        assert grid.shape == (2, 9, cut.grid_width) == (2, 9, width)
        assert torch.allclose(top(grid), whole(pixels(96)), atol=1e-4)
    assert cut.sha256 != whole.sha256
    assert (len(top.tail) if top.tail is not None else 0) == tail


def test_only_blocks_that_keep_the_grid_are_cut_off() -> None:
    with pytest.raises(ConfigError, match="tail=5: of this tower the last 4 blocks"):
        build_tower("lite0", size=64, pretrained=False).behead(5)
