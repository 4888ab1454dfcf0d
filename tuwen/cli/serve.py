"""`tuwen serve`."""

from __future__ import annotations

import socket
from typing import Annotated

import typer
from rich.text import Text

from tuwen.cli.common import say, warn
from tuwen.cli.index import DB, Db
from tuwen.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    db: Db = DB,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Another address than the default lets other machines in, with a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(help="Ask every request for this token; made where other machines are let in.")
    ] = None,
    caption_model: Annotated[
        str, typer.Option(help="What describes: a shipped model, a run or hf:REPO.")
    ] = "captioning",
    ask_model: Annotated[str, typer.Option(help="What answers questions.")] = "vqa",
    draw_model: Annotated[str, typer.Option(help="What draws.")] = "text-to-image",
    upload_mb: Annotated[int, typer.Option(min=1, max=1024, help="Largest upload, in megabytes.")] = 32,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Longest time of a request.")] = 60,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Search, describe, ask and draw in the browser, and by REST (/docs), over an index made by `tuwen index`.

    On this machine alone, unless --host says otherwise. Ctrl-C stops it.
    """
    from tuwen.server import create_app
    from tuwen.server.guard import is_loopback
    from tuwen.server.limits import Limits
    from tuwen.server.running import new_token, run
    from tuwen.store import open_store

    open_store(db)  # says what is missing, before anything else
    loopback = is_loopback(host)
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError("--token: at least 8 letters and digits; without --token one is made where it is needed")
    if not loopback and token is None:
        token = new_token()
    listening = listen(host, port)
    models = {"caption": caption_model, "ask": ask_model, "draw": draw_model}
    app = create_app(
        db, token=token, loopback=loopback, models=models, limits=Limits(upload=upload_mb << 20, seconds=seconds)
    )
    address = url(host, listening.getsockname()[1], token)
    if not loopback:
        warn("other machines can reach this server, unencrypted: whoever has the token sees the pictures")
    say(Text(f"{db} at {address} (Ctrl-C stops)"))
    if open_:
        import webbrowser

        webbrowser.open(address)
    run(app, listening)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. ConfigError, in one line, where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--host {host}: no address of this machine ({error.strerror or error})") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits a minute
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {host} cannot be had ({error.strerror}): is another `tuwen serve` running? "
            "Name another --port, or 0 for a free one"
        ) from None
    return listening


def url(host: str, port: int, token: str | None) -> str:
    """What to open in a browser. Where all addresses are listened on, by this machine's name."""
    name = socket.gethostname() if host.strip("[]") in ("0.0.0.0", "::", "") else host.strip("[]")
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
