"""Towers that transformers builds: ResNets, MobileNetV1, and any vision model of the hub or of a local folder."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from logging import ERROR
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tuwen.checkpoint import read_tensors
from tuwen.errors import ModelError
from tuwen.images import View
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

T = TypeVar("T")

RESNETS = {  # blocks a stage (He et al. 2016); from 50 on bottlenecks, stride in their 3x3 ("v1.5")
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MOBILENET = "google/mobilenet_v1_1.0_224"


class ConvBody(Body):
    """A transformers network whose last state is a map (B, D, H, W)."""

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net = net
        self.grid_width = self.pooled_width = width

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.net(x).last_hidden_state
        return last


class TokenBody(Body):
    """A vision transformer, whose last state is tokens: a class and registers it may have, then the patches.

    `pool` is what the makers compare with texts: the class token, projected, for CLIP; the attention pool for SigLIP;
    the normalised class token for DINOv2. `summary=False`: the patches' mean, for a model that has no trained one.
    """

    def __init__(self, net: Any, projection: nn.Module | None, size: int, summary: bool) -> None:
        super().__init__()
        self.net, self.projection, self.summary = net, projection, summary
        self.patches = (size // net.config.patch_size) ** 2
        self.grid_width: int = net.config.hidden_size
        self.pooled_width = projection.out_features if isinstance(projection, nn.Linear) else self.grid_width
        # DINO always fits its positions to the size, and knows no such argument
        fitted = size == net.config.image_size or "dino" in net.config.model_type
        self.options = {} if fitted else {"interpolate_pos_encoding": True}

    def forward(self, x: Tensor) -> Any:
        return self.net(pixel_values=x, **self.options)

    def grid(self, last: Any) -> Tensor:
        tokens: Tensor = last.last_hidden_state
        return tokens[:, -self.patches :]

    def pool(self, last: Any) -> Tensor:
        if not self.summary:
            return self.grid(last).mean(1)
        summary: Tensor = last.pooler_output
        return summary if self.projection is None else self.projection(summary)


def build_resnet(depth: int, size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """ResNet-18 to 152, ImageNet: from the hub, or from a local torchvision or transformers state dict."""
    from transformers import ResNetConfig, ResNetModel

    name = f"resnet{depth}"
    if pretrained and weights is None:
        net, _ = from_hub(ResNetModel, f"microsoft/resnet-{depth}")
        width = net.config.hidden_sizes[-1]
    else:
        kind, blocks = RESNETS[depth]
        widths = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
        net, width = ResNetModel(ResNetConfig(layer_type=kind, hidden_sizes=widths, depths=list(blocks))), widths[-1]
    if weights is not None:
        fill(net, from_torchvision(read_tensors(weights)), str(weights))
    return _tower(name, ConvBody(net, width), size or 224, IMAGENET, View("center"))


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's state dict under the names of transformers; one that has those already is unchanged."""
    rules = (
        (r"^conv1\.", "embedder.embedder.convolution."),
        (r"^bn1\.", "embedder.embedder.normalization."),
        (r"\.downsample\.0\.", ".shortcut.convolution."),
        (r"\.downsample\.1\.", ".shortcut.normalization."),
        (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
        (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
        (r"^layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}."),
        (r"^resnet\.", ""),
    )
    out = {}
    for key, value in state.items():
        if key.startswith(("fc.", "classifier.")):
            continue
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        out[key] = value
    return out


def build_mobilenet(size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """MobileNetV1, width 1.0 (Howard et al. 2017): from the hub, or a local state dict of transformers."""
    from transformers import MobileNetV1Config, MobileNetV1Model

    if pretrained and weights is None:
        net, _ = from_hub(MobileNetV1Model, MOBILENET)
    else:
        net = MobileNetV1Model(MobileNetV1Config(initializer_range=0.09))  # its makers' and CMPM's start
    if weights is not None:
        state = read_tensors(weights).items()
        kept = {k.removeprefix("mobilenet_v1."): v for k, v in state if not k.startswith("classifier.")}
        fill(net, kept, str(weights))
    return _tower("mobilenet-v1", ConvBody(net, 1024), size or 224, HALF, View("center"))


def build_hub(source: str, size: int | None, pretrained: bool) -> Tower:
    """A vision model by hub name or local folder: CLIP, SigLIP, Chinese-CLIP, DINOv2, ViT, ResNet, ConvNeXt ..."""
    from transformers import AutoConfig, AutoModel

    if pretrained:
        net, summary = from_hub(AutoModel, source)
    else:
        net, summary = AutoModel.from_config(asked(AutoConfig, source)), True
    projection = getattr(net, "visual_projection", None)
    net = getattr(net, "vision_model", net).eval()  # a model of pictures and texts gives its picture half
    side, norm, view = preprocessing(source, net.config)
    size = size or side
    try:
        with torch.no_grad():
            last = net(pixel_values=torch.zeros(1, 3, side, side))
    except (TypeError, ValueError) as error:
        raise ModelError(f"hf:{source}: not a tower of pictures ({net.config.model_type}): {error}") from None
    if last.last_hidden_state.ndim == 4:
        body: Body = ConvBody(net, last.last_hidden_state.shape[1])
    else:
        summary = summary and getattr(last, "pooler_output", None) is not None
        if not summary and hasattr(net, "pooler"):
            net.pooler = None  # random numbers, which would make another hash each time
        body = TokenBody(net, projection, size, summary)
    return _tower(f"hf:{source}", body, size, norm, view)


def _tower(name: str, body: Body, size: int, norm: tuple[Any, Any], view: View) -> Tower:
    mean, std = ([255 * value for value in values] for values in norm)
    return Tower(name, body, size, mean, std, view)


def preprocessing(source: str, config: Any) -> tuple[int, tuple[Any, Any], View]:
    """Side, (mean, std) and view from the makers' preprocessor file; without one, the model's side and ImageNet's."""
    kept: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if found := hub_file(source, name):
            kept = json.loads(found.read_text())
            kept = kept.get("image_processor", kept)
            break
    size = kept.get("size", getattr(config, "image_size", 224))
    edge, side = _edge(size), _edge(kept.get("crop_size", size) if kept.get("do_center_crop") else size)
    # a crop of the makers from a larger picture is our `center`; a plain resize, or the whole shorter side, `squash`
    view = View("center") if edge > side or "crop_pct" in kept else View()
    return side, (kept.get("image_mean", IMAGENET[0]), kept.get("image_std", IMAGENET[1])), view


def _edge(size: Any) -> int:
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or size.get("height") or 224)
    return int(size[0] if isinstance(size, list | tuple) else size)


def hub_file(source: str, name: str) -> Path | None:
    """A file of a local folder, or of a hub repository through its cache; None where the repository has none."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    def ask(local: bool) -> str | None:
        found: str | None = cached_file(
            source, name, local_files_only=local, _raise_exceptions_for_missing_entries=False
        )
        return found

    found = _from_cache_or_network(ask, source)
    return Path(found) if found else None


def from_hub(model: Any, source: str) -> tuple[Any, bool]:
    """`model.from_pretrained`, of safetensors or tensors alone, and whether its pooler was trained.

    Raises:
        ModelError: it is not here and cannot be fetched, is a pickle, or lacks weights, which would stay random.
    """
    net, info = asked(model, source, weights_only=True, output_loading_info=True)
    missing = [key for key in info["missing_keys"] if "pooler." not in key]
    if missing:
        raise ModelError(f"{source}: its weights lack {', '.join(sorted(missing)[:2])}; they are of another model")
    return net, not info["missing_keys"]


def asked(maker: Any, source: str, **options: Any) -> Any:
    """`maker.from_pretrained` of a hub name or a local folder, running no code that came with it."""

    def ask(local: bool) -> Any:
        return maker.from_pretrained(source, local_files_only=local, trust_remote_code=False, **options)

    return _from_cache_or_network(ask, source)


def _from_cache_or_network(ask: Callable[[bool], T | None], source: str) -> T | None:
    """`ask(local)`: first of what is here, silently, so that what was fetched needs no network; then of the hub."""
    folder = Path(source).is_dir()
    if not folder and source.startswith(("/", ".", "~")):
        raise ModelError(f"{source}: there is no such folder")
    with quiet():
        try:
            found = ask(True)
            if found is not None or folder:
                return found
        except Exception as error:  # transformers raises whatever its parts do, with pages of advice
            if folder:
                raise ModelError(
                    f"{source}: cannot be loaded; it needs config.json and model.safetensors ({_line(error)})"
                ) from None
        try:
            _show_bars(True)
            return ask(False)
        except Exception as error:
            raise ModelError(
                f"{source}: not here, and cannot be fetched; fetch it once where there is a network ({_line(error)})"
            ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No advice and no bars from transformers and the hub's client within."""
    import huggingface_hub.utils.logging as hub
    from transformers.utils import logging

    levels = logging.get_verbosity(), hub.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    hub.set_verbosity(ERROR)
    _show_bars(False)
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        hub.set_verbosity(levels[1])
        _show_bars(bars)


def _show_bars(on: bool) -> None:
    from transformers.utils import logging

    (logging.enable_progress_bar if on else logging.disable_progress_bar)()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
