"""ResNets, VGG19 and MobileNetV1 against plain slow definitions, and the weight files that they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tuwen.errors import ConfigError, ModelError
from tuwen.images import View
from tuwen.towers import build_tower, thaw
from tuwen.towers.hub import RESNETS, from_torchvision
from tuwen.towers.plain import find_edges
from tuwen.towers.vgg import PLAN, VggBody, from_published

State = dict[str, Tensor]


def pixels(size: int, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


def normalised(image: Tensor) -> Tensor:
    x = image.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def norm_state(state: State, key: str, width: int) -> None:
    for name, start in (("weight", 0.5), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 0.5)):
        state[f"{key}.{name}"] = start + torch.rand(width) / 2
    state[f"{key}.num_batches_tracked"] = torch.tensor(1)


def torchvision_resnet(depth: int) -> State:
    """A random state dict with torchvision's names and shapes."""
    torch.manual_seed(depth)
    kind, blocks = RESNETS[depth]
    expand = 1 if kind == "basic" else 4
    state: State = {}

    def conv(key: str, out: int, width: int, side: int) -> None:
        state[f"{key}.weight"] = torch.randn(out, width, side, side) * (2 / (width * side * side)) ** 0.5

    conv("conv1", 64, 3, 7)
    norm_state(state, "bn1", 64)
    width = 64
    for stage, count in enumerate(blocks, 1):
        inner = 32 * 2**stage
        for block in range(count):
            key = f"layer{stage}.{block}"
            shapes = [(inner, width, 3), (inner, inner, 3)] if expand == 1 else []
            shapes = shapes or [(inner, width, 1), (inner, inner, 3), (4 * inner, inner, 1)]
            for index, (out, into, side) in enumerate(shapes, 1):
                conv(f"{key}.conv{index}", out, into, side)
                norm_state(state, f"{key}.bn{index}", out)
            if block == 0 and (stage > 1 or expand == 4):
                conv(f"{key}.downsample.0", inner * expand, width, 1)
                norm_state(state, f"{key}.downsample.1", inner * expand)
            width = inner * expand
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, width), torch.randn(1000)
    return state


def slow_resnet(state: State, depth: int, x: Tensor) -> Tensor:
    """torchvision's forward, written out: bottlenecks stride in their 3x3 (v1.5)."""
    kind, blocks = RESNETS[depth]

    def unit(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{name}"] for name in names))

    x = F.max_pool2d(F.relu(unit(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            key, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            if kind == "basic":
                y = F.relu(unit(x, f"{key}.conv1", f"{key}.bn1", stride))
                y = unit(y, f"{key}.conv2", f"{key}.bn2")
            else:
                y = F.relu(unit(x, f"{key}.conv1", f"{key}.bn1"))
                y = F.relu(unit(y, f"{key}.conv2", f"{key}.bn2", stride))
                y = unit(y, f"{key}.conv3", f"{key}.bn3")
            if f"{key}.downsample.0.weight" in state:
                x = unit(x, f"{key}.downsample.0", f"{key}.downsample.1", stride)
            x = F.relu(x + y)
    return x


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_reads_torchvision(tmp_path: Path, depth: int) -> None:
    state = torchvision_resnet(depth)
    torch.save(state, tmp_path / "resnet.pth")
    tower = build_tower(f"resnet{depth}", size=64, weights=tmp_path / "resnet.pth")
    with torch.inference_mode():
        expected = slow_resnet(state, depth, normalised(pixels(64)))
        grid, pooled = tower(pixels(64)), tower.pooled(pixels(64))
    scale = expected.abs().max()
    assert torch.allclose(grid, expected.flatten(2).transpose(1, 2), atol=1e-4 * scale)
    assert torch.allclose(pooled, expected.mean((2, 3)), atol=1e-4 * scale)
    assert tower.pooled_width == pooled.shape[1] == (512 if depth == 18 else 2048)
    assert tower.view == View("center")


@pytest.mark.parametrize("depth", [34, 101, 152])
def test_deeper_resnets_have_torchvisions_keys(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        own = build_tower(f"resnet{depth}", pretrained=False).body.net.state_dict()  # type: ignore[union-attr, operator]
        mapped = from_torchvision(torchvision_resnet(depth))
    assert {key: value.shape for key, value in mapped.items()} == {key: value.shape for key, value in own.items()}
    assert len(own) == {34: 216, 101: 624, 152: 930}[depth]


def test_vgg_is_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = VggBody(plan=(4, 0, 8, 8, 0), width=16).eval()
    state = body.state_dict()
    assert list(state)[::2] == [f"{key}.weight" for key in ("features.0", "features.3", "features.5")] + [
        f"classifier.{index}.weight" for index in (0, 3)
    ]
    x = torch.randn(2, 3, 28, 28)

    def conv(x: Tensor, index: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))

    def linear(x: Tensor, index: int) -> Tensor:
        return F.relu(F.linear(x, state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"]))

    with torch.inference_mode():
        last = conv(conv(F.max_pool2d(conv(x, 0), 2), 3), 5)
        assert torch.allclose(body.grid(body(x)), last.flatten(2).transpose(1, 2), atol=1e-6)
        fc7 = linear(linear(F.max_pool2d(last, 2).flatten(1), 0), 3)
        assert torch.allclose(body.pool(body(x)), fc7, atol=1e-6)
        assert body.pool(body(torch.randn(1, 3, 40, 40))).shape == (1, 16)


def test_vgg19_reads_torchvision_and_timm() -> None:
    with torch.device("meta"):
        own = {key: value.shape for key, value in VggBody(PLAN).state_dict().items()}
        last = {"weight": torch.zeros(1000, 4096), "bias": torch.zeros(1000)}
        torchvision = {key: torch.zeros(shape) for key, shape in own.items()}
        timm = {
            key.replace("classifier.0", "pre_logits.fc1").replace("classifier.3", "pre_logits.fc2"): value
            for key, value in torchvision.items()
        }
        timm["pre_logits.fc1.weight"] = torch.zeros(4096, 512, 7, 7)
        timm["pre_logits.fc2.weight"] = torch.zeros(4096, 4096, 1, 1)
        torchvision |= {f"classifier.6.{key}": value for key, value in last.items()}
        timm |= {f"head.fc.{key}": value for key, value in last.items()}
    for state in (torchvision, timm):
        assert {key: value.shape for key, value in from_published(state).items()} == own
    assert (own["features.34.weight"], own["classifier.0.weight"]) == ((512, 512, 3, 3), (4096, 25088))


def test_mobilenet_shapes() -> None:
    tower = build_tower("mobilenet-v1", size=64, pretrained=False)
    with torch.inference_mode():
        assert tower(pixels(64)).shape == (2, 4, 1024)
        assert tower.pooled(pixels(64)).shape == (2, 1024)
    assert tower.transform == "64:127.5,127.5,127.5,127.5,127.5,127.5"


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    good = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    files: dict[str, tuple[Callable[[Path], object], str]] = {
        "missing.pth": (lambda path: None, "there is no such weight file"),
        "weights.h5": (lambda path: path.write_bytes(b"x"), "read from .safetensors or .pth"),
        "text.pth": (lambda path: path.write_bytes(b"not weights"), "text.pth"),
        "cut.safetensors": (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{}"), "as safetensors"),
        "list.pth": (lambda path: torch.save([1], path), "holds no state dict"),
        "part.safetensors": (lambda path: save_file(good, path), "lacks"),
        "other.pth": (lambda path: torch.save(torchvision_resnet(18) | {"more": torch.zeros(1)}, path), "unknown more"),
    }
    for name, (write, why) in files.items():
        write(tmp_path / name)
        with pytest.raises(ModelError) as caught:
            build_tower("resnet18", weights=tmp_path / name)
        assert name in str(caught.value)
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)


def test_plain_is_the_written_out_network() -> None:
    tower = build_tower("plain", size=16, pretrained=False)
    state = tower.body.state_dict()
    images = pixels(16)

    def conv(x: Tensor, name: str, stride: int) -> Tensor:
        return F.conv2d(x, state[f"layers.{name}.weight"], state[f"layers.{name}.bias"], stride, 1)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.relu(F.group_norm(x, 8, state[f"layers.{name}.weight"], state[f"layers.{name}.bias"]))

    x = (images.permute(0, 3, 1, 2) - 127.5) / 63.75
    for layer in range(7):
        if layer in (0, 2, 4):
            x = conv(x, str(layer), 2)
        else:
            y = conv(norm(x, f"{layer}.layers.0"), f"{layer}.layers.2", 1)
            x = x + conv(norm(y, f"{layer}.layers.3"), f"{layer}.layers.5", 1)
    x = norm(x, "7")
    assert x.shape == (2, 128, 2, 2)
    assert torch.allclose(tower(images), x.flatten(2).transpose(1, 2), atol=1e-5)


def test_forms_of_twofold_are_blind_to_colour() -> None:
    tower = build_tower("twofold", size=20, pretrained=False)
    light = pixels(20)[..., :1].int().clamp(12, 240)
    grey, tinted = (tower((light + torch.tensor(tint)).to(torch.uint8)) for tint in ([0, 0, 0], [9, -3, -6]))
    assert grey.shape == (2, 9, 176)
    torch.testing.assert_close(grey[..., 48:], tinted[..., 48:], atol=1e-4, rtol=1e-4)
    assert (grey[..., :48] - tinted[..., :48]).abs().max() > 1e-3


def test_colours_of_twofold_are_blind_to_form() -> None:
    tower, mixed = build_tower("twofold", size=24, pretrained=False), pixels(24)
    cell = mixed[:, 8:16, 8:16].flatten(1, 2)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = mixed.clone()
    moved[:, 8:16, 8:16] = cell[:, order].view(-1, 8, 8, 3)
    before, after = tower(mixed), tower(moved)
    torch.testing.assert_close(before[..., :48], after[..., :48], atol=1e-4, rtol=1e-4)
    assert (before[..., 48:] - after[..., 48:]).abs().max() > 1e-3


def test_some_pictures_have_no_colours_while_twofold_trains() -> None:
    torch.manual_seed(0)
    tower = build_tower("twofold", size=8, pretrained=False)
    images = torch.randint(256, (400, 8, 8, 3), dtype=torch.uint8)
    assert (tower(images)[..., :48] != 0).any(-1).all()
    seen = thaw(tower).train()(images)
    gone = (seen[..., :48] == 0).all(-1).float().mean()
    assert 0.15 < gone < 0.35
    assert (seen[..., 48:] != 0).any(-1).all()


def test_edges_are_where_colours_meet() -> None:
    x = torch.zeros(1, 3, 4, 4)
    x[:, :, :, 2:] = torch.tensor([0.0, 3.0, 4.0])[:, None, None]  # 5 apart
    edges = find_edges(x)
    expected = torch.zeros(1, 2, 4, 4)
    expected[:, 0, :, 2] = 4.9**2 / (4.9**2 + 0.4**2)
    torch.testing.assert_close(edges, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(find_edges(x.transpose(2, 3)), expected.transpose(2, 3).flip(1), atol=1e-3, rtol=0)
    assert find_edges(0.05 * torch.rand(1, 3, 4, 4)).max() < 1e-6  # noise is none


def test_plain_has_no_weights_of_others() -> None:
    with pytest.raises(ConfigError, match=r"pretrained=false"):
        build_tower("plain")
