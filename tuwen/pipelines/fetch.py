"""The files of a hub model: which are known by a short name, where they lie here, and how they are fetched.

Only `fetch` opens a connection, and only `tuwen models get` calls it. Weights are safetensors alone.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuwen.errors import ConfigError, ModelError, suggest

MAIN, CONFIG, WEIGHTS = "main", "config.json", "model.safetensors"
SHARDS = f"{WEIGHTS}.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Offer:
    """A web-trained model that `tuwen models get` knows by a short name; its commit is fixed."""

    repo: str
    revision: str
    languages: tuple[str, ...]
    licence: str
    megabytes: int
    about: str


OFFERS = {
    "best": Offer(
        "google/siglip2-base-patch16-224",
        "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
        ("en", "zh"),
        "apache-2.0",
        1540,
        "SigLIP 2, base: English, Chinese and some hundred other languages",
    ),
    "chinese": Offer(
        "OFA-Sys/chinese-clip-vit-base-patch16",
        "f4a64596bbcf9a2a94591b74b9dc39b2e4e77e3e",  # the hub's own conversion: `main` holds a pickle alone
        ("zh",),
        "not stated (its code: MIT)",
        753,
        "Chinese-CLIP, base: Chinese",
    ),
}
REVISIONS = {offer.repo: offer.revision for offer in OFFERS.values()}


def find_folder(source: str) -> Path:
    """The files of a local folder, or those that `fetch` laid in the hub's cache; never the network.

    Raises:
        ModelError: they are not here; says how to fetch them.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not _is_repo(source):
        raise ModelError(f"hf:{source}: there is no such folder")
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, CONFIG, revision=REVISIONS.get(source, MAIN))
    if not isinstance(found, str):
        raise ModelError(f"hf:{source} is not on this machine; fetch it with `tuwen models get {source}`")
    return Path(found).parent


def is_here(source: str) -> bool:
    """Whether `load` would find the whole model on this machine."""
    try:
        return bool(weight_files(find_folder(source), source))
    except ModelError:
        return False


def architectures(source: str) -> set[str]:
    """What a model's configuration says that it is; nothing where that is broken, which is told when it is opened.

    Raises:
        ModelError: its files are not here.
    """
    folder = find_folder(OFFERS[source].repo if source in OFFERS else source)
    try:
        names = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return set()
    return set(map(str, names))


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors of a model's folder. ModelError where there are none, or not all."""
    try:
        index = json.loads((folder / SHARDS).read_text("utf-8"))["weight_map"].values()
    except FileNotFoundError:
        index = []
    except (ValueError, KeyError, AttributeError):
        raise ModelError(f"{folder / SHARDS}: broken; fetch the model again") from None
    paths = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else [folder / shard for shard in sorted(set(index))]
    if missing := next((path for path in (folder / CONFIG, *paths) if not path.is_file()), None):
        raise ModelError(f"{name}: {missing.name} is missing in {folder}; `tuwen models get` fetches what is missing")
    if paths:
        return paths
    if pickle := next((path for path in sorted(folder.iterdir()) if path.suffix in PICKLES), None):
        raise ModelError(
            f"{pickle}: a pickle could run code, so weights are read from {WEIGHTS} alone; "
            "where you trust it, load it with transformers and write it by save_pretrained"
        )
    raise ModelError(f"{name}: no {WEIGHTS} in {folder}; copy it there, or fetch the model by `tuwen models get`")


@dataclass(frozen=True)
class Fetched:
    """What `fetch` laid where; `model` is what `--model` takes."""

    model: str
    folder: str
    files: list[str]
    bytes: int
    licence: str


def fetch(name: str, bars: bool = False) -> Fetched:
    """Download a model into the hub's cache: each file appears whole or not at all, and one that is here is kept.

    A broken connection is taken up again where it broke; a new call fetches what is missing, from whole files on.

    `name`: one of `OFFERS`, or a hub name, with or without `hf:`. HF_ENDPOINT names another hub, HF_HOME another cache.

    Raises:
        ConfigError: no such name.
        ModelError: the hub cannot be reached, has no such model, or has it only as a pickle.
    """
    name = name.removeprefix("hf:")
    if name not in OFFERS and ("/" not in name or not _is_repo(name)):
        known = ", ".join(OFFERS)
        raise ConfigError(
            f"no model '{name}' to fetch{suggest(name, OFFERS)}; known: {known}, or OWNER/NAME of the hub"
        )
    repo = OFFERS[name].repo if name in OFFERS else name
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"hf:{repo}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it and try again")
    endpoint, revision = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, REVISIONS.get(repo, MAIN)
    client: Any = importlib.import_module("huggingface_hub.utils")
    client.logging.set_verbosity_error()  # what goes wrong is told below, in one line
    silence = not bars and not client.are_progress_bars_disabled()
    try:
        if silence:
            client.disable_progress_bars()
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True, timeout=10)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        files = _choose(sizes, repo)
        folder = snapshot_download(repo, revision=revision, allow_patterns=files, endpoint=endpoint)
    except ModelError:
        raise
    except Exception as error:  # of the hub's client and of its HTTP client, which changes between versions
        raise ModelError(f"hf:{repo}: {_why(error, endpoint)}") from None
    finally:
        if silence:
            client.enable_progress_bars()
    card = info.card_data.get("license") if info.card_data else None
    licence = card or next((offer.licence for offer in OFFERS.values() if offer.repo == repo), "not stated")
    return Fetched(f"hf:{repo}", folder, files, sum(sizes[file] for file in files), str(licence))


def _choose(sizes: dict[str, int], repo: str) -> list[str]:
    """Of a repository's files: one set of safetensors, and the JSON and tokeniser files beside it."""
    top = sorted(name for name in sizes if "/" not in name)
    shards = [name for name in top if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    weights = [WEIGHTS] if WEIGHTS in top else shards
    if not weights:
        pickle = next((name for name in top if name.endswith(PICKLES)), None)
        what = f"only {pickle}, a pickle, which is never opened" if pickle else f"no {WEIGHTS}"
        raise ModelError(f"hf:{repo}: holds {what}; fetch another model (`tuwen models` lists some)")
    return weights + [name for name in top if name.endswith((".json", ".txt", ".model"))]


def _why(error: Exception, endpoint: str) -> str:
    """One line on what went wrong with the hub, and the mend."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"its makers ask for consent: give it on {endpoint} and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"{endpoint} has no such public model; look at its name there"
    if isinstance(error, RevisionNotFoundError):
        return f"{endpoint} lacks the commit that this version of tuwen names; set HF_ENDPOINT to the hub itself"
    if isinstance(error, HfHubHTTPError):
        return f"{endpoint} answered {error.response.status_code}; try again later, files that came whole are kept"
    first = (str(error).strip().splitlines() or [""])[0][:160]
    return (
        f"cannot be fetched from {endpoint} ({type(error).__name__}: {first}); check the network, or name a mirror by "
        "HF_ENDPOINT; files that came whole are kept"
    )


def _is_repo(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII) is not None
