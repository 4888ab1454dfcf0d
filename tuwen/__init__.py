"""Tuwen (图文): finds, describes, asks and draws pictures, from your own pictures and captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from tuwen.pipelines import load


def __getattr__(name: str) -> Any:
    # Late, so that `import tuwen` costs nothing and the command starts at once.
    if name == "load":
        from tuwen.pipelines import load

        return load
    raise AttributeError(f"module 'tuwen' has no attribute '{name}'")
