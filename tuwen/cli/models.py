"""`tuwen models`, `tuwen models get` and `tuwen doctor`."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tuwen import __version__, checkpoint
from tuwen.cli.common import print_json, say, warn
from tuwen.errors import ConfigError

PARTS = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "onnxruntime",
    "lancedb",
    "pillow",
    "numpy",
    "jieba",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="List the models, or fetch one.")
    group.callback(invoke_without_command=True)(models)
    group.command("get")(get)
    app.add_typer(group, name="models")
    app.command("doctor")(doctor)


def models(
    context: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """List the models that come inside the package, and those that `tuwen models get NAME` fetches."""
    if context.invoked_subcommand is not None:
        return
    rows, offers = _shipped(), _offers()
    if json:
        print_json({"models": rows, "offers": offers})
        return
    table = Table("inside the package", "task", "languages", "MB", "card")
    for row in rows:
        size, card = f"{row['bytes'] / 1e6:.1f}", f"{row['folder']}/README.md"
        table.add_row(row["name"], row["task"], " ".join(row["languages"]), size, card)
    say(table)
    say("\nTo fetch, once, where there is a network; they learnt from the web at large:")
    for row in offers:
        state = "here" if row["here"] else f"about {row['megabytes']:,} MB"
        say(Text.assemble((f"tuwen models get {row['name']}", "bold"), f"   {row['about']} ({state})"))
        say(Text(f"   --model {row['model']}   licence: {row['licence']}", "dim"))
    say("Any other CLIP, SigLIP, Chinese-CLIP, or captioner as BLIP, of the hub: tuwen models get OWNER/NAME")


def get(
    name: Annotated[str, typer.Argument(help="best, chinese, or OWNER/NAME of a model on the hub.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fetch a web-trained model from the Hugging Face hub, once; then it works without a network.

    Safetensors, JSON and tokeniser files alone. Again: what is missing. HF_ENDPOINT names a mirror.
    """
    from tuwen.pipelines.fetch import OFFERS, fetch

    if name in checkpoint.shipped_models():
        raise ConfigError(f"{name} comes inside the package: use it with --model {name}")
    if not json and (offer := OFFERS.get(name)):
        say(Text(f"{name}: {offer.repo}, {offer.about}; about {offer.megabytes:,} MB; licence: {offer.licence}"))
    from tuwen.pipelines.hub_captioner import is_captioner

    found = fetch(name, bars=not json and sys.stderr.isatty())
    if json:
        print_json(asdict(found))
        return
    say(Text(f"{found.model}: {len(found.files)} files, {found.bytes / 1e6:,.1f} MB; licence: {found.licence}"))
    say(Text(f"it lies in {found.folder}"))
    what = "caption" if is_captioner(found.model.removeprefix("hf:")) else "index"
    say(Text(f"use it: tuwen {what} PICTURES --model {found.model}"))


def _shipped() -> list[dict[str, Any]]:
    rows = []
    for name in checkpoint.shipped_models():
        folder = checkpoint.SHIPPED / name
        config = checkpoint.read_config(folder)
        rows.append(
            {
                "name": name,
                "task": config["task"],
                "languages": config["languages"],
                "bytes": (folder / checkpoint.WEIGHTS).stat().st_size,
                "folder": str(folder),
            }
        )
    return rows


def _offers() -> list[dict[str, Any]]:
    from tuwen.pipelines.fetch import OFFERS, is_here

    return [
        {"name": name, "model": f"hf:{offer.repo}", "here": is_here(offer.repo), **asdict(offer)}
        for name, offer in OFFERS.items()
    ]


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what this machine has, and what is missing."""
    versions: dict[str, str | None] = {}
    for part in PARTS:
        try:
            versions[part] = metadata.version(part)
        except metadata.PackageNotFoundError:
            versions[part] = None
    missing = [part for part, version in versions.items() if version is None]
    found = {
        "tuwen_version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpu": Path("/dev/nvidiactl").exists(),
        "versions": versions,
        "models": checkpoint.shipped_models(),
        "missing": missing,
    }
    if json:
        print_json(found)
    else:
        table = Table(show_header=False)
        for key, value in found.items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            table.add_row(key, ", ".join(shown) if isinstance(shown, list) else str(shown))
        say(table)
    if missing:
        warn(f"missing: {', '.join(missing)}; mend: {sys.executable} -m pip install tuwen")
        raise typer.Exit(1)
