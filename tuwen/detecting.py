"""Regions for pictures that have none: the boxes of a DETR-like detector, and its last hidden state of each.

(Carion et al., ECCV 2020, and its kin in transformers: Conditional and Deformable DETR, RT-DETR, D-FINE, YOLOS.)
Loading never opens a connection (`tuwen models get` does), reads safetensors alone, and runs no code of a model's own.
"""

from __future__ import annotations

import inspect
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuwen import dataset as datasets
from tuwen import images
from tuwen.errors import DataError, ModelError, PictureError
from tuwen.files import sha256_text, write_atomic
from tuwen.pipelines.fetch import find_folder, weight_files
from tuwen.pipelines.hub import PREPARATION, makers_sight, weights_sha256
from tuwen.pipelines.pictures import note_failed, read_ahead
from tuwen.progress import track
from tuwen.regions import FOLDER, SOURCE, Regions, write_regions

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 36  # regions a picture, as in the public features of bottom-up attention
AHEAD = 4  # pictures decoded while one is looked at


class Detector:
    """A detector that transformers builds, in float32. It looks at one picture at a time, so that none is padded."""

    def __init__(self, source: str, device: str | None = None, most: int = MOST) -> None:
        """`source`: `hf:` and a hub name whose files are here, or a local folder. `device`: None takes a GPU where
        torch has one. `most`: boxes a picture.

        Raises:
            ModelError: it is not here, is no such detector, or its weights are broken or a pickle.
        """
        source, self.most = source.removeprefix("hf:"), most
        self.folder = find_folder(source)
        self.name = f"hf:{self.folder if Path(source).expanduser().is_dir() else source}"
        weights = weight_files(self.folder, self.name)

        import torch
        from transformers import AutoConfig, AutoModelForObjectDetection
        from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

        from tuwen.towers.hub import asked, from_hub

        config = asked(AutoConfig, str(self.folder))
        if config.model_type not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            raise ModelError(f"{self.name}: a {config.model_type}, not a detector as DETR, RT-DETR or YOLOS are")
        backbone = getattr(config, "backbone_config", None)
        if getattr(backbone, "model_type", "") == "timm_backbone" and find_spec("timm") is None:
            raise ModelError(
                f"{self.name}: its backbone is timm's: pip install timm, or take an RT-DETR, which has none"
            )
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._classes = int(config.num_labels)
        self._prepare = makers_sight(self.folder, self.name)
        net, _ = from_hub(AutoModelForObjectDetection, str(self.folder))
        self._net = net.float().eval().to(self.device)
        self._masked = "pixel_mask" in inspect.signature(net.forward).parameters
        seen = (self.folder / PREPARATION).read_text(encoding="utf-8")
        self.fingerprint = sha256_text(f"{[weights_sha256(path) for path in weights]} {seen}")[:12]

    def detect(self, picture: Image, most: int | None = None) -> Regions:
        """The surest boxes of an upright RGB picture, surest first, in its pixels, with features (n, d) float32.

        `most`: so many; None: the detector's own number.

        Raises:
            ModelError: the model gives no boxes with a hidden state each.
        """
        import torch

        from tuwen.towers.hub import quiet

        with quiet():
            inputs = self._prepare(images=[picture], return_tensors="pt")
        given = {"pixel_values": inputs["pixel_values"].to(self.device)}
        if self._masked and "pixel_mask" in inputs:
            given["pixel_mask"] = inputs["pixel_mask"].to(self.device)
        with torch.inference_mode():
            out = self._net(**given)
        logits, boxes, states = out.get("logits"), out.get("pred_boxes"), out.get("last_hidden_state")
        if logits is None or boxes is None or states is None or states.shape[1] < boxes.shape[1]:
            raise ModelError(f"{self.name}: gives no boxes with a hidden state each, as DETR does; name another")
        # one class more than labels is "nothing here", in a softmax; else each class stands for itself
        alone = logits.shape[-1] == self._classes
        sure = (logits.sigmoid() if alone else logits.softmax(-1)[..., :-1])[0].amax(-1)  # (Q,)
        best = sure.argsort(descending=True, stable=True)[: most or self.most]
        middle, half = boxes[0, best, :2], boxes[0, best, 2:] / 2  # shares of the picture
        corners = torch.cat([middle - half, middle + half], 1).clamp(0, 1)
        states = states[0, -boxes.shape[1] :][best]  # of YOLOS the patches come first
        pixels = corners.float().cpu().numpy() * np.array([*picture.size] * 2, np.float32)
        return Regions(pixels.astype(np.float32), states.float().cpu().numpy(), picture.size)


def write(folder: Path | str, source: str, most: int = MOST, device: str | None = None) -> dict[str, Any]:
    """Find regions in all pictures of a data set, and say how many.

    One `.npz` a picture's content, whole or not at all, in `regions/NAME-FINGERPRINT-MOST/`: a stopped run goes on
    with the next picture. `metadata.jsonl` is written at the end; regions of other makers are no longer named in it,
    for one model takes features of one kind.

    Raises:
        DataError: no data set, or none of its pictures can be read.
        ModelError: as `Detector`.
    """
    data = datasets.read(folder)
    detector = Detector(source, device, most)
    name = re.sub(r"[^\w.-]+", "-", Path(detector.name.removeprefix("hf:")).name)
    there = Path(FOLDER) / f"{name}-{detector.fingerprint}-{most}"
    failed: list[dict[str, str]] = []
    counts = {"found": 0, "kept": 0, "replaced": 0}

    def read(path: Path) -> tuple[str, Image | None]:
        """Its content's name and the picture; None where its regions are there."""
        content = images.content_id(path)[:32]
        return content, None if (data.folder / there / f"{content}.npz").is_file() else images.open_image(path)

    made_by = {"detector": detector.name, "fingerprint": detector.fingerprint, "most": most}
    write_atomic(data.folder / there / SOURCE, json.dumps(made_by))
    looked = read_ahead([data.path(picture) for picture in data.pictures], read, AHEAD)
    for picture, (path, future) in zip(data.pictures, track(looked, len(data), "looking for regions"), strict=True):
        try:
            content, image = future.result()
        except PictureError as error:
            note_failed(failed, str(path), error)
            picture.regions = None
            continue
        file = there / f"{content}.npz"
        if image is None or (data.folder / file).is_file():
            counts["kept"] += 1
        else:
            write_regions(data.folder / file, detector.detect(image))
            counts["found"] += 1
        counts["replaced"] += picture.regions not in (None, file.as_posix())
        picture.regions = file.as_posix()
    if len(failed) == len(data):
        raise DataError(f"{failed[0]['file']}: {failed[0]['why']}; no picture of {folder} can be read")
    datasets.save(data)
    return {"data": str(folder), "detector": detector.name, "folder": there.as_posix(), **counts, "failed": failed}
