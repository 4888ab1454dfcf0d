"""The page `/docs`: the OpenAPI for people, with nothing fetched from a network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

Json = dict[str, Any]


def render(api: Json) -> str:
    """An OpenAPI as one HTML page. Every text is escaped."""
    shapes = api["components"]["schemas"]
    tags: dict[str, list[Json]] = {}
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            tags.setdefault(route["tags"][0], []).append(_route(method, path, route, shapes))
    asked = {name for name in shapes if name.endswith(("Request", "SearchPicture"))}  # shown with their routes
    shown = {
        name: {"about": shape.get("description", ""), "fields": _fields(shape)}
        for name, shape in shapes.items()
        if name not in asked and "properties" in shape and not name.startswith(("HTTP", "Validation"))
    }
    source = (files("tuwen") / "templates" / "api.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    info = api["info"]
    return environment.from_string(source).render(
        title=info["title"], version=info["version"], description=info["description"], tags=tags, shapes=shown
    )


def _route(method: str, path: str, route: Json, shapes: Json) -> Json:
    takes = [
        _field(one["name"], {**one["schema"], "description": one.get("description", "")}, one.get("required", False))
        for one in route.get("parameters", [])
    ]
    for body in route.get("requestBody", {}).get("content", {}).values():
        takes += _fields(shapes[_name(body["schema"])])
    status, answer = next(iter(route["responses"].items()))
    kind, body = next(iter(answer.get("content", {"nothing": {}}).items()))
    return {
        "method": method.upper(),
        "path": path,
        "about": route.get("description") or route.get("summary", ""),
        "takes": takes,
        "status": status,
        "kind": kind,
        "shape": _name(body.get("schema", {})) if kind == "application/json" else "",
    }


def _fields(shape: Json) -> list[Json]:
    needed = shape.get("required", [])
    return [_field(name, field, name in needed) for name, field in shape["properties"].items()]


def _field(name: str, schema: Json, required: bool) -> Json:
    example = next(iter(schema.get("examples", [])), None)
    return {
        "name": name,
        "kind": _kind(schema),
        "about": schema.get("description", ""),
        "required": required,
        "example": None if example is None else json.dumps(example, ensure_ascii=False),
    }


def _kind(schema: Json) -> str:
    """A JSON schema in few words."""
    if name := _name(schema):
        return name
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("format") or schema.get("type", "any"))
    if schema.get("contentMediaType"):
        kind = "file"
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum", schema.get("maxLength"))
    return kind + (f" {'' if low is None else low}..{high}" if high is not None else "")


def _name(schema: Json) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
