"""Requests made from the OpenAPI, good ones and bad ones: none brings the server to a 500, all answers fit it."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fake_server import World
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tuwen.server import create_app

EXAMPLES = 8  # an operation, valid ones and as many invalid ones
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
TOKEN = "a-token-of-some-length"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}  # schemathesis asks as "testserver", which loopback refuses
BOUNDS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_no_request_is_a_server_error(shown: World, caplog: pytest.LogCaptureFixture) -> None:
    seen: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    app = create_app(shown.db, load=shown.load, token=TOKEN, loopback=False)
    with TestClient(app), caplog.at_level(logging.ERROR, "tuwen.server"):
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seed(7)
                @BOUNDS
                @given(case=operation.as_strategy(generation_mode=mode))
                def ask(case: Any) -> None:
                    answer = case.call(headers=HEADERS)
                    seen[case.operation.label] += 1
                    statuses[answer.status_code] += 1
                    case.validate_response(answer, checks=CHECKS)

                # What takes nothing cannot be asked wrongly.
                with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
                    ask()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    paths = app.openapi()["paths"]
    assert set(seen) == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert sum(seen.values()) >= 8 * len(seen)
    assert {200, 404, 422} <= set(statuses)
