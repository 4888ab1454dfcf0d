"""The loop: the four proofs, exact resume, kills, several processes, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from tuwen import checkpoint, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, parse_recipe
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.tasks import start_task

Make = Callable[..., Path]


def recipe(**changes: object) -> Recipe:
    tree: dict[str, object] = {
        "data": {"captions": 1},
        "tokenizer": {"kind": "word"},
        "model": {
            "width": 16,
            "image": {"tower": "features:toy"},
            "text": {"kind": "gru", "embedding": 8, "width": 16, "dropout": 0.1},
        },
        "loss": {"info_nce": 1.0},
        "train": {"epochs": 3, "batch_size": 4, "lr": 0.01, "ema": 0.9, "warmup": 0.5, "schedule": "cosine", "clip": 2},
    }
    for key, value in changes.items():
        part, _, leaf = key.partition("__")
        tree[part] = {**tree.get(part, {}), leaf: value} if leaf else value  # type: ignore[dict-item]
    return parse_recipe(tree, "test")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(run / "model.safetensors")


def lines(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("seconds")} for line in found]


# The four proofs (DESIGN, house rules 4)


def test_first_loss_is_the_log_of_the_candidates(make_toy: Make) -> None:
    made = recipe(model__scale=1.0, train__batch_size=12, data__captions=1)
    task = start_task(made, datasets.load(make_toy(36)))
    loss = task.losses(task.model.eval(), task.train[0], 0.0)["info_nce"].item()
    # In each language 12 pictures and 12 captions: either side picks 1 of 12, and cosines at scale 1 move that little.
    expected = math.log(12)
    assert loss == pytest.approx(expected, abs=0.35)


LOSSES = {
    "info_nce": 1.0,
    "hinge": 1.0,
    "n_pair": 1.0,
    "cmpm": 1.0,
    "cmpc": 1.0,
    "sdm": 1.0,
    "captions": 0.5,
    "reconstruction": 0.5,
    "adversarial": 0.5,
}


@pytest.mark.parametrize("kind", ["gru", "lstm", "bert"])
def test_gradients_reach_every_parameter(make_toy: Make, kind: str) -> None:
    text = {"kind": kind, "embedding": 8, "width": 24, "bidirectional": kind == "lstm", "pooling": "max", "heads": 2}
    image = {"tower": "features:toy", "hidden": 8}
    made = recipe(model={"width": 16, "image": image, "text": text}, loss=LOSSES)
    task = start_task(made, datasets.load(make_toy()))
    parts = task.losses(task.model.train(), task.train[0], 0.0)
    assert parts.keys() == LOSSES.keys()
    sum(parts.values()).backward()  # type: ignore[union-attr]
    untouched = [
        n for n, p in task.model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    # BERT reads places 0..T-1 alone and no second segment: rows beyond have no gradient, the matrices do.
    assert not untouched
    assert len(list(task.model.parameters())) > 8


def test_a_tiny_set_overfits(make_toy: Make, tmp_path: Path) -> None:
    made = recipe(train={"epochs": 120, "batch_size": 8, "lr": 0.02, "evaluate_every": 500}, data__captions=2)
    result = train.fit(made, make_toy(12, splits=("train", "val")), tmp_path / "run")
    losses = [line["loss"] for line in lines(tmp_path / "run") if line["split"] == "train"]
    assert result["steps"] == 120
    assert losses[-1] < 0.1 < losses[0]


def test_saved_and_loaded_models_embed_alike_to_the_bit(make_toy: Make, tmp_path: Path) -> None:
    data, out = make_toy(), tmp_path / "run"
    train.fit(recipe(train__ema=0.0, train__epochs=1), data, out)
    task = start_task(recipe(), datasets.load(data))
    checkpoint.load_state(task.model, weights(out), "test")
    loaded = pipelines.read_model(out, checkpoint.read_config(out))
    batch = task.train[0]
    with torch.inference_mode():
        for fresh, read in zip(
            task.model.eval()(batch["pictures"], batch["ids"], batch["lengths"]),
            loaded(batch["pictures"], batch["ids"], batch["lengths"]),
            strict=True,
        ):
            assert torch.equal(fresh, read)


@pytest.mark.parametrize("cut", [1, 5, 8, 11])
def test_a_run_cut_in_two_equals_the_uncut_run(make_toy: Make, tmp_path: Path, cut: int) -> None:
    data = make_toy()
    made = recipe(
        train__evaluate_every=3, loss={"hinge": 1.0, "hardest_warmup": 2.0, "info_nce": 1.0, "mine_offline": 2}
    )
    train.fit(made, data, tmp_path / "whole")
    run = started(made, data, tmp_path / "cut")
    run.create()
    asked = iter(range(1000))
    with pytest.raises(KeyboardInterrupt):
        run.train(stop=lambda: run.state.step >= cut and next(asked) >= 0)
    assert checkpoint.load_last(tmp_path / "cut" / "last")[1]["step"] == cut
    torch.manual_seed(12345)  # the resumed process comes with another random state
    result = train.fit(made, data, tmp_path / "cut", resume=True)
    assert result["steps"] == run.total > cut
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for name in ("last",):
        first, second = (checkpoint.load_last(tmp_path / r / name)[0] for r in ("whole", "cut"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


def started(made: Recipe, data: Path, out: Path) -> train.Run:
    """A run that the test steps itself."""
    from accelerate import Accelerator

    dataset = datasets.load(data)
    return train.Run(made, start_task(made, dataset), Accelerator(), out, dataset.fingerprint())


KILLED = """
import os, signal, sys
from pathlib import Path
from tuwen import checkpoint, files, train
from tuwen.config import parse_recipe
import yaml
recipe, data, out, fatal = sys.argv[1:]
count, inner = 0, Path.replace
def replace(self, target):
    global count
    count += 1
    if count == int(fatal):
        os.kill(os.getpid(), signal.SIGKILL)  # between the file beside and its rename
    return inner(self, target)
Path.replace = replace
train.fit(parse_recipe(yaml.safe_load(Path(recipe).read_text()), recipe), Path(data), Path(out))
"""


@pytest.mark.parametrize("fatal", [9, 10, 11, 12])
def test_killed_in_the_middle_of_a_save_it_resumes(make_toy: Make, tmp_path: Path, fatal: int) -> None:
    made, data = recipe(train__evaluate_every=2, train__epochs=2), make_toy()
    (tmp_path / "r.yaml").write_text(train.dump_recipe(made))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "r.yaml"), str(data), str(tmp_path / "cut"), str(fatal)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums are equal to the bit for as many threads alone
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | threads)
    assert done.returncode == -signal.SIGKILL, done.stderr
    train.fit(made, data, tmp_path / "cut", resume=True)
    train.fit(made, data, tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list((tmp_path / "cut" / "last").glob(".*"))


def _worker(rank: int, folder: str, world: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TUWEN_CACHE": f"{folder}/cache"}
    torch.set_num_threads(1)
    meet, patience = f"file://{folder}/meet", timedelta(seconds=90)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=patience)
    train.SAVE_SECONDS = 600 * (1 - rank)  # one process wants to save at each step, the other not: both must
    from accelerate import PartialState

    made = recipe(
        model__text={"kind": "gru", "embedding": 8, "width": 16}, train__batch_size=8, train__schedule="constant"
    )
    train.fit(made, Path(folder) / "toy", Path(folder) / "two")
    assert PartialState().num_processes == world  # `accelerate launch --cpu` would silently run one
    torch.distributed.barrier()  # gloo aborts a process that leaves while another still talks to it
    torch.distributed.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # torch's gloo threads now and then abort an interpreter that is torn down around them


def test_two_processes_equal_one(make_toy: Make, tmp_path: Path) -> None:
    make_toy(36)
    torch.multiprocessing.spawn(_worker, args=(str(tmp_path), 2), nprocs=2)
    made = recipe(
        model__text={"kind": "gru", "embedding": 8, "width": 16}, train__batch_size=8, train__schedule="constant"
    )
    train.fit(made, tmp_path / "toy", tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert "random/1" in checkpoint.load_last(tmp_path / "two" / "last")[0]


# What goes wrong


def test_a_run_is_never_written_over(make_toy: Make, tmp_path: Path) -> None:
    data = make_toy()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        train.fit(recipe(), data, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["note.txt"]


def test_bad_data_writes_nothing(make_toy: Make, tmp_path: Path) -> None:
    only = make_toy(6, splits=("train",))
    with pytest.raises(DataError, match="no split 'val'"):
        train.fit(recipe(), only, tmp_path / "run")
    with pytest.raises(DataError, match="no features 'none'"):
        train.fit(recipe(model__image={"tower": "features:none"}), make_toy(name="b"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_needs_the_same_recipe_and_the_same_data(make_toy: Make, tmp_path: Path) -> None:
    data, out = make_toy(), tmp_path / "run"
    with pytest.raises(ModelError, match="nothing to resume"):
        train.fit(recipe(), data, out, resume=True)
    train.fit(recipe(train__epochs=1), data, out)
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        train.fit(recipe(train__epochs=2), data, out, resume=True)
    with pytest.raises(DataError, match="other data"):
        train.fit(recipe(train__epochs=1), make_toy(30, name="other"), out, resume=True)


def test_a_loss_that_explodes_stops_the_run(make_toy: Make, tmp_path: Path) -> None:
    data = make_toy()
    matrix = np.load(data / "toy.npy")
    np.save(data / "toy.npy", np.full_like(matrix, np.nan))
    with pytest.raises(ModelError, match=r"lower train\.lr"):
        train.fit(recipe(), data, tmp_path / "run")


def test_learning_rate_follows_its_schedule() -> None:
    settings = recipe(train={"schedule": "step", "lr": 1.0, "step_epochs": 2, "gamma": 0.5, "floor": 0.2}).train
    rates = [train.learning_rate(settings, step, 10, 100) for step in (0, 19, 20, 40, 60, 99)]
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.2, 0.2]
    marks = {"schedule": "step", "lr": 1.0, "steps": [1.5, 4], "step_epochs": 1, "gamma": 0.1}
    settings = recipe(train=marks).train  # marks go before every step_epochs
    rates = [train.learning_rate(settings, step, 10, 100) for step in (0, 14, 15, 39, 40, 99)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    settings = recipe(train={**marks, "warmup": 2.0, "warmup_from": 0.2}).train
    rates = [train.learning_rate(settings, step, 10, 100) for step in range(50)]
    assert rates[:20] == pytest.approx([0.2 + 0.8 * (i + 1) / 21 for i in range(20)])  # no mark while it warms up
    assert rates[20:40] == pytest.approx([0.1] * 20)
    assert rates[40] == pytest.approx(0.01)
    settings = recipe(train={"schedule": "cosine", "lr": 1.0, "warmup": 1.0}).train
    rates = [train.learning_rate(settings, step, 10, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
