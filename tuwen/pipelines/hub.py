"""CLIP, SigLIP, Chinese-CLIP and their kin, of the hub or of a local folder, as an `Embedder`.

Loading never opens a connection (`tuwen models get` does), reads safetensors alone, and runs no code that comes with
a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ModelError
from tuwen.files import sha256_file, sha256_text
from tuwen.images import View
from tuwen.pipelines.embedder import Vectors
from tuwen.pipelines.fetch import OFFERS, find_folder, weight_files
from tuwen.pipelines.pictures import batches

if TYPE_CHECKING:
    from PIL.Image import Image

SENTENCES = 128  # a batch
SIGLIP = ("siglip", "siglip2")
# Chinese-CLIP's position table has 512 rows, but only those of its makers' context length were trained.
MAX_TOKENS = {"chinese_clip": 52}
CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF_NORM = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CHINESE = "一只狗在草地上奔跑"
PREPARATION = "preprocessor_config.json"
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")  # without one, transformers makes a tokeniser of no words


class HubEmbedder:
    """A model of pictures and texts that transformers builds, in float32."""

    task = "retrieval"

    def __init__(self, source: str, device: str | None = None) -> None:
        """`source`: a hub name whose files are here, or a local folder. `device`: None takes a GPU where torch has one.

        Raises ModelError.
        """
        source = OFFERS[source].repo if source in OFFERS else source
        self.folder = find_folder(source)
        self.name = f"hf:{self.folder if Path(source).expanduser().is_dir() else source}"
        weights = weight_files(self.folder, self.name)

        import torch

        from tuwen.text import HubTokenizer
        from tuwen.towers.hub import quiet

        self.device = device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._net, config = _load(self.folder, self.name)
        self._net.to(device)
        self.kind: str = config.model_type
        self.size, norm, self.view = _sight(self.folder, config)
        self._mean, self._std = (255 * torch.tensor(values, device=device).view(3, 1, 1) for values in norm)
        if not any(path.name in VOCABULARIES or path.suffix == ".model" for path in self.folder.iterdir()):
            raise ModelError(f"{self.name}: no tokeniser ({', '.join(VOCABULARIES)}) in {self.folder}; copy it there")
        with quiet():
            self.tokenizer = HubTokenizer(self.folder)
        self.max_tokens = MAX_TOKENS.get(self.kind, min(config.text_config.max_position_embeddings, 512))
        self.languages = _languages(self.kind, self.tokenizer)
        self.threshold: dict[str, float] = {}
        self.sha256 = [weights_sha256(path) for path in weights]
        self.fingerprint = sha256_text(f"{self.sha256} {self.size} {norm} {self.kind}")[:16]
        self.dim = self.embed_texts(["a"]).shape[1]

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """(B, S, S, 3) uint8 as `images.load` gives with this model's `size` and `view` -> (B, d), unit length."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
            return _unit(self._net.get_image_features(pixel_values=(x - self._mean) / self._std))

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """Paths or PIL pictures -> (n, d), unit length. Raises PictureError where one can't be read."""
        blocks = [self.embed_pixels(pixels) for _, pixels in batches(pictures, self.size, self.view)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences -> (n, d), unit length."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths waste no padding
        blocks = []
        for start in range(0, len(order), SENTENCES):
            words = self._tokens([texts[i] for i in order[start : start + SENTENCES]])
            tensors = {key: torch.from_numpy(array).to(self.device) for key, array in words.items()}
            with torch.inference_mode():
                blocks.append(_unit(self._net.get_text_features(**tensors)))
        if not blocks:
            return np.zeros((0, self.dim), np.float32)
        out = np.empty_like(rows := np.concatenate(blocks))
        out[order] = rows
        return out

    def unknown_words(self, text: str) -> list[str]:
        """Words that hold its unknown token; of a model that never learnt Chinese, the Chinese words too."""
        from tuwen.text import split_words

        strange = set(self.tokenizer.unknown(text))
        chinese = "zh" in self.languages
        return [word for word in split_words(text) if word in strange or not (chinese or _latin(word))]

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        return {
            "tower": f"{self.kind} of {self.name}",
            "pretrained": "the whole model, on what its card says (web-scale pictures and texts)",
            "weights_sha256": " ".join(self.sha256),
            "seed": None,
        }

    def _tokens(self, texts: list[str]) -> dict[str, NDArray[np.int64]]:
        """What the text half takes. SigLIP learnt on lower case, always 64 tokens, its padding read like words."""
        siglip = self.kind in SIGLIP
        ids, lengths = self.tokenizer.encode([t.lower() for t in texts] if siglip else texts, self.max_tokens)
        if siglip:
            room = ((0, 0), (0, self.max_tokens - ids.shape[1]))
            return {"input_ids": np.pad(ids, room, constant_values=self.tokenizer.pad_id)}
        mask = np.arange(ids.shape[1]) < lengths[:, None]  # (B, T)
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """The module in eval mode and float32, and its configuration."""
    from transformers import AutoConfig, AutoModel

    from tuwen.towers.hub import asked, from_hub

    config = asked(AutoConfig, str(folder))
    if config.model_type == "siglip2":
        raise ModelError(
            f"{name}: a NaFlex SigLIP 2, which takes pictures of any shape; use one of a fixed size, as `best` is"
        )
    if not (hasattr(config, "text_config") and hasattr(config, "vision_config")):
        raise ModelError(f"{name}: a {config.model_type}, not a model of pictures and texts as CLIP and SigLIP are")
    net, whole = from_hub(AutoModel, str(folder))
    if not (hasattr(net, "get_text_features") and hasattr(net, "get_image_features")):
        raise ModelError(f"{name}: a {config.model_type} gives no vectors of pictures and texts, as CLIP and SigLIP do")
    if not whole:
        raise ModelError(f"{name}: its weights lack a pooler, which would stay random")
    return net.float().eval(), config


def _sight(folder: Path, config: Any) -> tuple[int, tuple[Any, Any], View]:
    """Side, (mean, std) and view of its makers; without their file, those of the family."""
    from tuwen.towers.hub import preprocessing

    vision = config.vision_config
    side, norm, view = preprocessing(str(folder), vision)
    if not any((folder / f"{kind}processor_config.json").is_file() for kind in ("pre", "")):
        norm = HALF_NORM if config.model_type in SIGLIP else CLIP_NORM
    # a vision transformer has positions for its own side alone
    return (vision.image_size if hasattr(vision, "patch_size") else side), norm, view


def _languages(kind: str, tokenizer: Any) -> list[str]:
    """Chinese where the vocabulary holds its signs: falling to bytes takes two or three pieces a sign."""
    if kind == "chinese_clip":
        return ["zh"]
    chinese = not tokenizer.unknown(CHINESE) and len(tokenizer.pieces(CHINESE)) <= len(CHINESE) + 1
    return ["en", "zh"] if chinese else ["en"]


def _latin(word: str) -> bool:
    return all(ord(letter) < 0x2E80 for letter in word)


def _unit(output: Any) -> Vectors:
    """transformers 5 gives the vectors inside an object, 4 gave them as they are."""
    from torch.nn import functional

    vectors = getattr(output, "pooler_output", output)
    unit: Vectors = functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit


def makers_sight(folder: Path, name: str) -> Any:
    """How its makers prepare a picture, of any shape: transformers' processor, through Pillow.

    Raises:
        ModelError: the folder does not say.
    """
    from transformers import AutoImageProcessor

    from tuwen.towers.hub import asked

    if not (folder / PREPARATION).is_file():
        raise ModelError(f"{name}: no {PREPARATION}, which says how it sees; copy it to {folder}")
    return asked(AutoImageProcessor, str(folder), backend="pil")


def weights_sha256(path: Path) -> str:
    """The hub's cache names a large file by its sha256, which spares reading gigabytes."""
    blob = path.resolve()
    named = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    return blob.name if named else sha256_file(path)
