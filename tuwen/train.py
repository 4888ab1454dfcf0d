"""The only training loop: batch -> loss parts -> backward -> step; variants enter by `tasks`."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from tuwen import __version__, card, checkpoint, evaluate, pipelines
from tuwen import dataset as datasets
from tuwen.config import Recipe, TrainConfig, dump_recipe, parse_recipe
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.files import write_atomic
from tuwen.muon import Muon, hidden_matrices
from tuwen.progress import bar
from tuwen.tasks import Task, start_task

LOG_EVERY = 20  # steps
SAVE_SECONDS = 600  # `last` is saved at each evaluation, and this often between two


@dataclass
class State:
    """Where a run stands: everything beside tensors that an exact resume needs."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    worse: int = 0  # evaluations since the best
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)  # sums of the loss parts since the last log line
    data: str = ""


def run(
    recipe: Recipe, data: Path, out: Path, *, resume: bool = False, cache: Path | None = None
) -> dict[str, Any] | None:
    """`fit`, then score the best model on validation and test; writes `scores.json` and the model card. None in any
    process but the first, which alone knows them."""
    summary = fit(recipe, data, out, resume=resume, cache=cache)
    if not PartialState().is_main_process:
        return None
    dataset = datasets.load(data)
    pipeline = pipelines.load(str(out))
    if isinstance(pipeline, pipelines.Vqa):
        summary["calibration"] = evaluate.calibrate(pipeline, dataset)
    for split in evaluate.scored_splits(pipeline, dataset):
        summary[split] = evaluate.score(pipeline, dataset, split)
    write_atomic(out / "scores.json", json.dumps(summary, ensure_ascii=False, indent=2))
    write_atomic(out / "README.md", card.write(out, dataset, summary))
    return summary


def fit(recipe: Recipe, data: Path, out: Path, *, resume: bool = False, cache: Path | None = None) -> dict[str, Any]:
    """Train a recipe on a data set into a run folder; returns the best validation scores and where they came from.

    Raises:
        DataError, ConfigError, ModelError: bad input, said in one line, before anything is written.
        KeyboardInterrupt: after `last/` was saved.
    """
    if resume:
        _same_recipe(recipe, out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        saved = (out / "last" / "state.json").is_file()
        mend = "add --resume to go on with it, or" if saved else "it holds no saved training:"
        raise DataError(f"{out}: exists already: {mend} name another --out, or delete it")
    dataset = datasets.load(data)
    accelerator = start_accelerator(recipe.train.precision)
    rank, world = accelerator.process_index, accelerator.num_processes
    with accelerator.main_process_first():  # one process extracts the features, the others find them cached
        task = start_task(recipe, dataset, cache, rank, world)
    run = Run(recipe, task, accelerator, out, dataset.fingerprint())
    if resume:
        run.restore()
    elif accelerator.is_main_process:
        run.create()
    with asked_to_stop() as stop:
        run.train(stop)
    return run.summary()


def start_accelerator(precision: str) -> Accelerator:
    """The processes of this training, as `torchrun` started them.

    Raises:
        ConfigError: accelerate joins fewer processes than were started; each would train alone, over the others.
    """
    AcceleratorState._reset_state()  # one process may train twice, with another precision
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerator = Accelerator(mixed_precision=precision, cpu=not gpu)
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise ConfigError(
            f"{wanted} processes were started, but accelerate joins {accelerator.num_processes}: use torchrun"
        )
    return accelerator


class Run:
    """One training in progress: the model, its optimiser, its average and its folder."""

    def __init__(self, recipe: Recipe, task: Task, accelerator: Accelerator, out: Path, data: str) -> None:
        self.recipe, self.task, self.accelerator, self.out = recipe, task, accelerator, out
        self.state = State(data=data)
        self.average = _average(task.model, recipe.train.ema)
        self.factors, self.optimiser = _optimiser(task, recipe.train)
        self.model, self.optimiser = accelerator.prepare(task.model, self.optimiser)
        if self.average is not None:
            self.average.to(accelerator.device)
        self.kept: dict[str, Tensor] = {}  # what the task keeps between epochs
        self.per_epoch = len(task.train)
        self.total = max(int(recipe.train.epochs > 0), round(recipe.train.epochs * self.per_epoch))
        self.every = recipe.train.evaluate_every or self.per_epoch
        torch.manual_seed(recipe.seed + rank_offset(accelerator))

    # The loop ------------------------------------------------------------------------------------------------------

    def train(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Every step that is still to come; `stop` is asked after each, and saves."""
        state, settings = self.state, self.recipe.train
        self.last_save, self.saved = time.monotonic(), state.step
        if not self.total:
            self._evaluate()
        with bar() as progress:
            follow = progress.add_task("training", total=self.total, completed=state.step, note="")
            ready = time.monotonic()
            for epoch, batch in self._batches():
                started = time.monotonic()
                self._set_rate(state.step)
                self.model.train()
                parts = self.task.losses(self.model, batch, state.step / self.per_epoch)
                loss = torch.stack(list(parts.values())).sum()
                if not torch.isfinite(loss):
                    raise ModelError(f"{self.out}: the loss is {loss.item()} at step {state.step + 1}: lower train.lr")
                forward = time.monotonic()
                self.accelerator.backward(loss)
                if settings.clip:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip)
                self.optimiser.step()
                self.optimiser.zero_grad()
                if self.average is not None:
                    self.average.update_parameters(self.task.model)
                state.step += 1
                done = time.monotonic()
                state.seconds += done - started
                times = {"data": started - ready, "forward": forward - started, "backward": done - forward}
                self._log({"loss": loss, **parts}, times)
                if state.step % self.per_epoch == 0:
                    self.kept = self._end_epoch(epoch)
                if state.step % self.every == 0 or state.step == self.total:
                    self._evaluate()
                    if settings.patience is not None and state.worse >= settings.patience:
                        return
                stopping, due = self._agree(stop(), time.monotonic() - self.last_save > SAVE_SECONDS)
                if (stopping or due) and self.saved != state.step:
                    self.save_last()
                if stopping:
                    raise KeyboardInterrupt
                progress.update(follow, completed=state.step, note=f"loss {loss.item():.3f} best {state.best:.1f}")
                ready = time.monotonic()

    def _agree(self, *wishes: bool) -> list[bool]:
        """What any process wishes, all do, at the same step: else one waits in a save that the others never enter."""
        if self.accelerator.num_processes == 1:
            return list(wishes)
        asked = torch.tensor(wishes, dtype=torch.int32, device=self.accelerator.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return [bool(wish) for wish in asked]

    def _batches(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Every batch that is still to come, with its epoch."""
        while self.state.step < self.total:
            epoch, done = divmod(self.state.step, self.per_epoch)
            self.task.train.set_epoch(epoch)
            wanted = range(done, min(self.per_epoch, done + self.total - self.state.step))
            loader: DataLoader[dict[str, Tensor]] = DataLoader(
                self.task.train,  # type: ignore[arg-type]
                batch_size=None,
                sampler=wanted,
                num_workers=self.recipe.data.workers,
                worker_init_fn=_ignore_interrupt,
                generator=torch.Generator(),  # its own: drawing batches must not move the model's random state
            )
            for batch in loader:
                yield epoch, {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _set_rate(self, step: int) -> None:
        rate = learning_rate(self.recipe.train, step, self.per_epoch, self.total)
        for factor, group in zip(self.factors, self.optimiser.param_groups, strict=True):
            group["lr"] = rate * factor

    # Evaluation ----------------------------------------------------------------------------------------------------

    def _judged(self) -> nn.Module:
        """The model that is scored and kept: the average where there is one."""
        model = self.task.model if self.average is None else self.average.module
        model.eval()
        return model

    def _end_epoch(self, epoch: int) -> dict[str, Tensor]:
        kept = self.task.end_epoch(self._judged(), epoch)
        self.model.train()
        return kept

    def _evaluate(self) -> None:
        if self.accelerator.is_main_process:
            scores = self.task.validate(self._judged())
            self._write({"split": "val", **scores})
            self._show()
            state = self.state
            if scores[self.task.score] > state.best:
                state.best, state.best_step, state.worse = scores[self.task.score], state.step, 0
                self._save_best(scores)
            else:
                state.worse += 1
        stop = torch.tensor([self.state.worse], device=self.accelerator.device)
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast(stop, 0)
        self.state.worse = int(stop)
        self.save_last()

    def _log(self, parts: dict[str, Tensor], times: dict[str, float]) -> None:
        window = self.state.window
        values = {name: part.item() for name, part in parts.items()}
        for name, value in (values | {f"{what}_seconds": spent for what, spent in times.items()}).items():
            window[name] = window.get(name, 0.0) + value
        window["batches"] = window.get("batches", 0) + 1
        if self.state.step % LOG_EVERY == 0:
            count = window.pop("batches")
            means = {name: total / count for name, total in window.items()}
            rate = self.optimiser.param_groups[0]["lr"]
            self._write({"split": "train", **means, "lr": rate, "seconds": round(self.state.seconds, 1)})
            self.state.window = {}

    def _write(self, values: dict[str, Any]) -> None:
        """One line into `metrics.jsonl`, and the numbers into TensorBoard."""
        if not self.accelerator.is_main_process:
            return
        step = self.state.step
        line = {"step": step, "epoch": round(step / self.per_epoch, 3), **values}
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self.board.add_scalar(f"{values['split']}/{name}", value, step)

    def _show(self) -> None:
        """What people watch in TensorBoard: pictures, and what the model makes of them now."""
        for tag, value in self.task.show(self._judged()).items():
            if isinstance(value, str):
                self.board.add_text(tag, value, self.state.step)
            else:
                self.board.add_image(tag, value.numpy(), self.state.step, dataformats="HWC")

    # The folder ----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the run folder: the recipe, where it came from, and nothing else yet."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomic(self.out / "recipe.yaml", dump_recipe(self.recipe))
        write_atomic(self.out / "provenance.json", json.dumps(provenance(self.state.data), indent=2))
        self.task.tokenizer.save(self.out)
        self._open_board()

    def _open_board(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.state.step + 1)

    def _save_best(self, scores: dict[str, float]) -> None:
        checkpoint.write_tensors(self.out / checkpoint.WEIGHTS, self._judged().state_dict())
        best = {"step": self.state.step, **{key: round(value, 3) for key, value in scores.items()}}
        checkpoint.write_config(self.out, {"version": __version__, **self.task.config(), "validation": best})

    def save_last(self) -> None:
        """Save what an exact resume needs; every process's random state goes in."""
        self.saved, self.last_save = self.state.step, time.monotonic()
        states = gather_random_states(self.accelerator)
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model/{name}": value for name, value in self.task.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in values.items()}
        tensors |= {f"random/{rank}": value for rank, value in enumerate(states)}
        tensors |= {f"task/{name}": value for name, value in self.kept.items()}
        if self.accelerator.scaler is not None:  # of fp16
            scaler = self.accelerator.scaler.state_dict()
            tensors |= {f"scaler/{name}": torch.as_tensor(value) for name, value in scaler.items()}
        checkpoint.save_last(self.out / "last", tensors, vars(self.state))

    def restore(self) -> None:
        """Go on exactly where `last/` was saved."""
        tensors, state = checkpoint.load_last(self.out / "last")
        if state["data"] != self.state.data:
            raise DataError(f"{self.out}: trained on other data than --data holds now: start a new run")
        self.state = State(**{key: state[key] for key in vars(self.state)})
        where = str(self.out / "last")
        checkpoint.load_state(self.task.model, _below(tensors, "model/"), where)
        if self.average is not None:
            checkpoint.load_state(self.average, _below(tensors, "average/"), where)
        self._restore_optimiser(_below(tensors, "optimiser/"))
        self.kept = _below(tensors, "task/")
        self.task.restore(self.kept)
        set_random_state(tensors[f"random/{self.accelerator.process_index}"], self.accelerator.device)
        if self.accelerator.scaler is not None:
            scaler = {name: value.item() for name, value in _below(tensors, "scaler/").items()}
            self.accelerator.scaler.load_state_dict(scaler)
        if self.accelerator.is_main_process:
            _cut_log(self.out / "metrics.jsonl", self.state.step)
            self._open_board()

    def _restore_optimiser(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split("/", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def summary(self) -> dict[str, Any]:
        """What the run came to."""
        state = self.state
        return {
            "run": str(self.out),
            "steps": state.step,
            "epochs": round(state.step / self.per_epoch, 2),
            "seconds": round(state.seconds, 1),
            "best_step": state.best_step,
            f"val_{self.task.score}": state.best,
        }


def learning_rate(train: TrainConfig, step: int, per_epoch: int, total: int) -> float:
    """The learning rate of a step (from 0): a function of the step alone, so that a resume needs no schedule state."""
    warmup = round(train.warmup * per_epoch)
    if step < warmup:
        return train.lr * (train.warmup_from + (1 - train.warmup_from) * (step + 1) / (warmup + 1))
    if train.schedule == "cosine":
        share = (step - warmup) / max(1, total - warmup)
        return train.floor + (train.lr - train.floor) * 0.5 * (1 + math.cos(math.pi * share))
    if train.schedule == "step":
        epoch = step / per_epoch
        falls = sum(epoch >= mark for mark in train.steps) if train.steps else int(epoch / train.step_epochs)
        return max(train.floor, train.lr * train.gamma**falls)
    return train.lr


def rank_offset(accelerator: Accelerator) -> int:
    """Each process drops other units: its seed is its own."""
    return 1000 * int(accelerator.process_index)


def provenance(data: str) -> dict[str, Any]:
    """Versions, git state and the data's hash: what it takes to do this run again."""
    versions = {"tuwen": __version__, "torch": torch.__version__, "python": platform.python_version()}
    try:
        here = Path(__file__).parent
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        described = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        described = ""
    return {"versions": versions, "git": described or None, "data": data, "machine": platform.machine()}


def gather_random_states(accelerator: Accelerator) -> list[Tensor]:
    """The torch random state of each process, its GPU's behind it."""
    own = torch.get_rng_state()
    if accelerator.device.type == "cuda":
        own = torch.cat([own, torch.cuda.get_rng_state(accelerator.device)])
    if accelerator.num_processes == 1:
        return [own]
    states = [torch.zeros_like(own).to(accelerator.device) for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather(states, own.to(accelerator.device))
    return [state.cpu() for state in states]


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Take a state of `gather_random_states`; one that was saved on a CPU says nothing of a GPU."""
    own = len(torch.get_rng_state())
    torch.set_rng_state(state[:own])
    if device.type == "cuda" and len(state) > own:
        torch.cuda.set_rng_state(state[own:], device)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM asks the loop to stop after a step, where it can save; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop stops, and stops its workers


def _average(model: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _optimiser(task: Task, train: TrainConfig) -> tuple[list[float], torch.optim.Optimizer]:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax, "muon": Muon
    }  # fmt: skip
    matrices = {id(p) for p in hidden_matrices(task.model)} if train.optimiser == "muon" else set()
    factors, groups = [], []
    for factor, params in task.groups():
        wanted = [p for p in params if p.requires_grad]
        # Scales, biases and norms are not decayed.
        for options, part in (
            ({"weight_decay": train.weight_decay, "hidden": True}, [p for p in wanted if id(p) in matrices]),
            ({"weight_decay": train.weight_decay}, [p for p in wanted if p.ndim > 1 and id(p) not in matrices]),
            ({"weight_decay": 0.0}, [p for p in wanted if p.ndim < 2]),
        ):
            if part:
                factors.append(factor)
                groups.append({"params": part, **options})
    return factors, kinds[train.optimiser](groups, lr=train.lr, betas=train.betas)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _same_recipe(recipe: Recipe, out: Path) -> None:
    """A resumed run goes on with the recipe it began with."""
    path = out / "recipe.yaml"
    if not path.is_file():
        raise ModelError(f"{out}: nothing to resume (no recipe.yaml): train without --resume")
    import yaml

    began = parse_recipe(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    if began != recipe:
        old, new = began.model_dump(), recipe.model_dump()
        raise ConfigError(
            f"{path}: the run began with another {_first_difference(old, new)}: resume with the same recipe"
        )


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    for key, value in old.items():
        if value != new[key]:
            if isinstance(value, dict):
                return _first_difference(value, new[key], f"{prefix}{key}.")
            return f"{prefix}{key} ({value}, now {new[key]})"
    return prefix


def _cut_log(path: Path, step: int) -> None:
    """Forget the lines of steps that were not saved: they will come again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_atomic(path, "".join(kept))
