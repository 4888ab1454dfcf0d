"""The server: REST with OpenAPI, and the web page, over one index."""

from __future__ import annotations

from tuwen.server.app import create_app

__all__ = ["create_app"]
