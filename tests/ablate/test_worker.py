"""What a trial's own process notes of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

HANGS = """
import sys, time
from pathlib import Path
from strawberry.ablate import worker
worker.TICK = 0.01
with worker._stopwatch(Path(sys.argv[1])) as spent:
    if sys.argv[2] == "hang":
        time.sleep(60)
print(spent())
"""


def test_the_time_of_a_killed_piece_is_not_lost(tmp_path: Path) -> None:
    """What was noted before `kill -9` is in what the next piece says."""
    path, code = tmp_path / "spent", [sys.executable, "-c", HANGS]
    process = subprocess.Popen([*code, str(path), "hang"])
    while not path.exists() or json.loads(path.read_text()) < 0.1:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    noted = json.loads(path.read_text())
    done = subprocess.run([*code, str(path), "end"], check=True, capture_output=True, text=True)
    assert 0.1 <= noted <= float(done.stdout)
    assert json.loads(path.read_text()) >= noted
