"""A toolkit that is not ours: node's `soap` pushes against the published WSDL."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from exchange.http.app import make_app
from exchange.receipts import verify_receipt
from tests.doors.bus import ORIGIN, TestBus
from tests.doors.conftest import City, Running


@pytest.fixture(scope="module")
def node() -> str:
    """The node program, if it has the `soap` package (found through NODE_PATH)."""
    program = shutil.which("node")
    if program is None or subprocess.run([program, "-e", "require('soap')"], capture_output=True).returncode != 0:
        pytest.skip("node soap (npm install soap; NODE_PATH)")
    return program


@pytest.mark.parametrize("version", ["11", "12"])
def test_node_soap_pushes_and_gets_a_receipt(
    node: str, version: str, start: Callable[[ASGIApp], Running], city: City, tmp_path: Path
) -> None:
    test = TestBus(tmp_path, city)
    water = test.bureau("water", "RS256")
    test.registry.grant("water", "push", "covers")
    running = start(make_app(test.bus, tmp_path / "spool"))
    script = Path(__file__).with_name("node_push.js")
    command = [node, str(script), f"https://localhost:{running.port}", str(water.path), ORIGIN, "covers", version]
    pushed = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    running.stop()
    test.bus.close()
    assert pushed.returncode == 0, pushed.stderr
    assert verify_receipt(pushed.stdout.strip().encode(), test.anchors).document["form"] == "inline"
