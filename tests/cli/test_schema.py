"""`strawberry schema`."""

from __future__ import annotations

import json

import pytest

from strawberry.cli.app import run

pytest.importorskip("strawberry.recipe.schema")


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The output is a JSON Schema, and nothing else."""
    assert run(["schema"]) == 0

    assert "$schema" in json.loads(capsys.readouterr().out)
