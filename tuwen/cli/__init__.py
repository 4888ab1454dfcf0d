"""The one command. Each file beside this one adds its commands by `register`."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from tuwen import __version__
from tuwen.errors import TuwenError

# Typer carries its own click in newer versions: its classes are reached through what it exports in all of them.
USAGE: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException
HELP = "Find, describe, ask and draw pictures, with models that learn from your own pictures and captions."


def _show_version(asked: bool) -> None:
    if asked:
        print(f"tuwen {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The command with everything registered."""
    from tuwen.cli import (
        ask,
        calibrate,
        caption,
        data,
        demo,
        draw,
        index,
        learn,
        models,
        questions,
        regions,
        scenes,
        search,
        serve,
        tune,
    )

    app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def common(
        version: bool = typer.Option(
            False, "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        """Options of every command."""

    for module in (
        *(demo, data, scenes, regions, questions, learn, tune, index, search),
        *(serve, caption, ask, draw, models, calibrate),
    ):
        module.register(app)
    return app


def main() -> None:
    """Run the command; an error of the data or the request is one line on standard error."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command with these arguments; its exit code: 0 done, 1 data or request at fault, 2 usage, 130 Ctrl-C."""
    if not os.environ.get("TUWEN_DEBUG"):
        warnings.simplefilter("ignore")  # those of libraries: ours are printed by `common.warn`
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = build()(arguments, standalone_mode=False, prog_name="tuwen")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return 130
    except USAGE as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except SystemExit as exit_:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # click's mark of a broken pipe
            return 0
        return exit_.code if isinstance(exit_.code, int) else 1
    except BrokenPipeError:  # `tuwen search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TuwenError as error:
        return _fail(str(error), error.exit_code)
    except PermissionError as error:
        return _fail(f"{error.filename}: no permission")
    except OSError as error:
        return _fail(f"{error.filename or 'disk'}: {error.strerror or error}")


def _fail(message: str, code: int = 1) -> int:
    if os.environ.get("TUWEN_DEBUG"):
        raise
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
