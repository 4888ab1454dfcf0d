"""From a checkpoint to an answer: `tuwen.load(name)`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, cast, overload

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.pipelines.adapted import Adapted
from tuwen.pipelines.captioning import Captioner
from tuwen.pipelines.describer import Attention, Described, Describer, Sentence
from tuwen.pipelines.drawer import Drawer, Drawing
from tuwen.pipelines.embedder import Embedder, Vectors
from tuwen.pipelines.fetch import OFFERS
from tuwen.pipelines.hub import HubEmbedder
from tuwen.pipelines.hub_captioner import HubCaptioner, is_captioner
from tuwen.pipelines.retrieval import Retrieval, read_model

__all__ = [
    "Adapted",
    "Attention",
    "Captioner",
    "Described",
    "Describer",
    "Drawer",
    "Drawing",
    "Embedder",
    "HubCaptioner",
    "HubEmbedder",
    "Pipeline",
    "Retrieval",
    "Sentence",
    "Vectors",
    "as_describer",
    "as_drawer",
    "as_embedder",
    "load",
    "read_model",
]

HUB = "hf:"
Pipeline: TypeAlias = Embedder | Describer | Drawer
PIPELINES: dict[str, type[Retrieval] | type[Captioner] | type[Drawer]] = {
    "retrieval": Retrieval,
    "captioning": Captioner,
    "text-to-image": Drawer,
}


@overload
def load(name: Literal["retrieval", "best", "chinese"] = ..., device: str | None = None) -> Embedder: ...
@overload
def load(name: Literal["captioning"], device: str | None = None) -> Describer: ...
@overload
def load(name: Literal["text-to-image"], device: str | None = None) -> Drawer: ...
@overload
def load(name: str, device: str | None = None) -> Pipeline: ...
def load(name: str = "retrieval", device: str | None = None) -> Pipeline:
    """A pipeline by a shipped model's name, a run's folder, or `hf:` and the hub name or folder of a model.

    Its `task` says what it can do: `retrieval` embeds pictures and texts (an `Embedder`), `captioning` describes
    pictures (a `Describer`), `text-to-image` draws them (a `Drawer`). Of the hub these are
    CLIP, SigLIP and their kin, and captioners as BLIP and GIT; the short names of `tuwen models get` work too, once
    they are fetched.

    `device`: `cpu`, `cuda`, ...; None takes a GPU where there is one, told by its device file, because asking torch
    would cost its import.

    Raises:
        ModelError: no such model, damaged or unsafe weights, or of a task that has no pipeline.
    """
    if name.startswith(HUB) or (name in OFFERS and not Path(name).exists()):
        source = name.removeprefix(HUB)
        return HubCaptioner(source, device) if is_captioner(source) else HubEmbedder(source, device)
    name, device = str(name), device or _default_device()
    folder = checkpoint.find_run(name)
    config = checkpoint.read_config(folder)
    if config["task"] not in (*PIPELINES, "adapter"):
        raise ModelError(f"{folder}: a {config['task']} model: this version knows {', '.join(PIPELINES)}; update tuwen")
    try:
        if config["task"] == "adapter":
            return Adapted(folder, config, as_embedder(load(config["base"], device)))
        return PIPELINES[config["task"]](folder, config, device)
    except KeyError as error:
        raise ModelError(
            f"{folder}/config.json: no {error}: the run is damaged or of another version, train again"
        ) from None


def as_embedder(pipeline: Pipeline) -> Embedder:
    """The pipeline, for a command that compares pictures and texts. ModelError where it is of another task."""
    _check_task(pipeline, "retrieval")
    return cast(Embedder, pipeline)


def as_describer(pipeline: Pipeline) -> Describer:
    """The pipeline, for a command that describes pictures. ModelError where it is of another task."""
    _check_task(pipeline, "captioning")
    return cast(Describer, pipeline)


def as_drawer(pipeline: Pipeline) -> Drawer:
    """The pipeline, for a command that draws. ModelError where it is of another task."""
    _check_task(pipeline, "text-to-image")
    return cast(Drawer, pipeline)


def _check_task(pipeline: Pipeline, task: str) -> None:
    if pipeline.task != task:
        raise ModelError(
            f"{pipeline.name}: a {pipeline.task} model, but {task} is needed here: name another with --model, "
            f"as {task}, a run's folder or hf:REPO"
        )


def _default_device() -> str:
    return "cuda" if Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() else "cpu"
