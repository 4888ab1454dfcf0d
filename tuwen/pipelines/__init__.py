"""From a checkpoint to an answer: `tuwen.load(name)`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, cast, overload

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.pipelines.adapted import Adapted
from tuwen.pipelines.answerer import Answer, Answerer, Gaze, Scored
from tuwen.pipelines.captioning import Captioner
from tuwen.pipelines.describer import Attention, Described, Describer, Sentence
from tuwen.pipelines.drawer import Drawer, Drawing
from tuwen.pipelines.embedder import Embedder, Vectors
from tuwen.pipelines.fetch import OFFERS
from tuwen.pipelines.hub import HubEmbedder
from tuwen.pipelines.hub_answerer import HubAnswerer, is_answerer
from tuwen.pipelines.hub_captioner import HubCaptioner, is_captioner
from tuwen.pipelines.reranker import Reranker
from tuwen.pipelines.retrieval import Retrieval, read_model
from tuwen.pipelines.vqa import Vqa

__all__ = [
    "Adapted",
    "Answer",
    "Answerer",
    "Attention",
    "Captioner",
    "Described",
    "Describer",
    "Drawer",
    "Drawing",
    "Embedder",
    "Gaze",
    "HubAnswerer",
    "HubCaptioner",
    "HubEmbedder",
    "Pipeline",
    "Reranker",
    "Retrieval",
    "Scored",
    "Sentence",
    "Vectors",
    "Vqa",
    "as_answerer",
    "as_describer",
    "as_drawer",
    "as_embedder",
    "load",
    "load_reranker",
    "read_model",
]

HUB = "hf:"
Pipeline: TypeAlias = Embedder | Describer | Answerer | Drawer
PIPELINES: dict[str, type[Retrieval] | type[Captioner] | type[Vqa] | type[Drawer]] = {
    "retrieval": Retrieval,
    "captioning": Captioner,
    "vqa": Vqa,
    "text-to-image": Drawer,
}


@overload
def load(name: Literal["retrieval", "best", "chinese"] = ..., device: str | None = None) -> Embedder: ...
@overload
def load(name: Literal["captioning"], device: str | None = None) -> Describer: ...
@overload
def load(name: Literal["vqa"], device: str | None = None) -> Answerer: ...


@overload
def load(name: Literal["text-to-image"], device: str | None = None) -> Drawer: ...
@overload
def load(name: str, device: str | None = None) -> Pipeline: ...
def load(name: str = "retrieval", device: str | None = None) -> Pipeline:
    """A pipeline by a shipped model's name, a run's folder, or `hf:` and the hub name or folder of a model.

    Its `task` says what it can do: `retrieval` embeds pictures and texts (an `Embedder`), `captioning` describes
    pictures (a `Describer`), `vqa` answers questions about them (an `Answerer`), `text-to-image` draws them (a
    `Drawer`). Of the hub these are CLIP, SigLIP and their kin, captioners as BLIP and GIT, and ViLT and BLIP for
    questions; the short names of `tuwen models get` work too, once they are fetched.

    `device`: `cpu`, `cuda`, ...; None takes a GPU where there is one, told by its device file, because asking torch
    would cost its import.

    Raises:
        ModelError: no such model, damaged or unsafe weights, or of a task that has no pipeline.
    """
    if name.startswith(HUB) or (name in OFFERS and not Path(name).exists()):
        source = name.removeprefix(HUB)
        if is_answerer(source):
            return HubAnswerer(source, device)
        return HubCaptioner(source, device) if is_captioner(source) else HubEmbedder(source, device)
    name, device = str(name), device or _default_device()
    folder = checkpoint.find_run(name)
    config = checkpoint.read_config(folder)
    if config["task"] not in (*PIPELINES, "adapter", "reranker"):
        raise ModelError(f"{folder}: a {config['task']} model: this version knows {', '.join(PIPELINES)}; update tuwen")
    try:
        if config["task"] == "adapter":
            return Adapted(folder, config, as_embedder(load(config["base"], device)))
        if config["task"] == "reranker":
            return Reranker(folder, config, cast(Retrieval, load(config["base"], device)), device)
        return PIPELINES[config["task"]](folder, config, device)
    except KeyError as error:
        raise ModelError(
            f"{folder}/config.json: no {error}: the run is damaged or of another version, train again"
        ) from None


def load_reranker(name: str, above: Embedder, device: str | None = None) -> Reranker:
    """A re-ranker's run, for hits that `above` found.

    Raises:
        ModelError: no such run, not of a re-ranker, or trained above another model.
    """
    found = load(name, device)
    if not isinstance(found, Reranker):
        raise ModelError(f"{name}: no re-ranker: name a run of `tuwen train reranker`")
    if found.fingerprint != above.fingerprint:
        raise ModelError(
            f"{name}: re-ranks what {found.config['base']} {found.fingerprint} finds, not {above.name} "
            f"{above.fingerprint}: train one with model.base={above.name}"
        )
    return found


def as_embedder(pipeline: Pipeline) -> Embedder:
    """The pipeline, for a command that compares pictures and texts. ModelError where it is of another task."""
    _check_task(pipeline, "retrieval")
    return cast(Embedder, pipeline)


def as_describer(pipeline: Pipeline) -> Describer:
    """The pipeline, for a command that describes pictures. ModelError where it is of another task."""
    _check_task(pipeline, "captioning")
    return cast(Describer, pipeline)


def as_answerer(pipeline: Pipeline) -> Answerer:
    """The pipeline, for a command that answers questions. ModelError where it is of another task."""
    _check_task(pipeline, "vqa")
    return cast(Answerer, pipeline)


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
