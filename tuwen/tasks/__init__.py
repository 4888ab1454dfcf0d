"""A dict: task name -> how to build a model, make batches, compute named loss parts and validate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from tuwen.config import Recipe
from tuwen.dataset import Dataset
from tuwen.errors import ModelError
from tuwen.tasks.adapter import AdapterTask
from tuwen.tasks.captioning import CaptioningTask
from tuwen.tasks.generation import GenerationTask
from tuwen.tasks.reranker import RerankerTask
from tuwen.tasks.retrieval import RetrievalTask
from tuwen.tasks.vqa import VqaTask
from tuwen.text import Tokenizer


class Batches(Protocol):
    """The batches of an epoch, by index; each a function of (seed, epoch, index) alone."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


class Task(Protocol):
    """What the loop needs to know of a task. One object serves one run."""

    name: str
    score: str  # the validation score that decides which model is best; higher is better

    @property
    def model(self) -> nn.Module: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def train(self) -> Batches: ...

    def config(self) -> dict[str, Any]:
        """What rebuilds the model: the content of `config.json`."""

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        """Parameters with the factor on their learning rate."""

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        """Named loss parts of a batch, weighted; `epochs` is how far the training is."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Scores on the validation split; `model` is in eval mode."""

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        """What people watch while it trains: pictures (H, W, 3) uint8 and text (Markdown), by tag."""

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        """Work between epochs (hard-example mining); what it returns is kept for a resume."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `end_epoch` returned."""


TASKS: dict[str, Any] = {
    "retrieval": RetrievalTask,
    "captioning": CaptioningTask,
    "vqa": VqaTask,
    "text-to-image": GenerationTask,
    "adapter": AdapterTask,
    "reranker": RerankerTask,
}


def start_task(recipe: Recipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1) -> Task:
    """The recipe's task on a data set: tokeniser trained, features extracted, model built."""
    task: Task = TASKS[recipe.task](recipe, dataset, cache=cache, rank=rank, world=world)
    return task


def restore_model(config: dict[str, Any]) -> nn.Module:
    """A model with random weights, built from a run's `config.json` alone."""
    if config["task"] not in TASKS:
        raise ModelError(f"a {config['task']} model: this version knows {', '.join(TASKS)}")
    model: nn.Module = TASKS[config["task"]].rebuild(config)
    return model
