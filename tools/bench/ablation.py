"""An ablation that is interrupted twice, and what running it costs beyond its trials.

    python tools/bench/ablation.py recipes/llama.yaml --out /tmp/ablation

4 attentions x 2 FFN x 3 seeds. The first process gets SIGINT, the second is killed, the third runs
to the end. Printed: how long each took, the trials' own seconds, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

VARY = ("attention=mha,linear,aft_simple,expert_abundance", "ffn=swiglu,moe")


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--after", type=float, default=60, help="seconds until an interruption")
    options = parser.parse_args()
    command = [sys.executable, "-m", "strawberry", "ablate", options.recipe,
               "--seeds", str(options.seeds), "--out", str(options.out),
               "--set", f"train.max_iters={options.steps}",
               "--set", f"train.eval_interval={max(1, options.steps // 5)}",
               "--set", f"train.checkpoint_interval={max(1, options.steps // 5)}"]  # fmt: skip
    for axis in VARY:
        command += ["--vary", axis]
    walls = []
    for number in (signal.SIGINT, signal.SIGKILL, None):
        started = time.perf_counter()
        process = subprocess.Popen(command)
        if number is not None:
            time.sleep(options.after)
            process.send_signal(number)
        code = process.wait()
        walls.append(time.perf_counter() - started)
        name = "to the end" if number is None else number.name
        print(f"{name}: {walls[-1]:.1f} s, exit code {code}", flush=True)
    record = json.loads((options.out / "ablation.json").read_text())
    results = [
        json.loads((options.out / trial["folder"] / "result.json").read_text())
        for trial in record["trials"]
    ]
    own = sum(result["spent"] for result in results)
    slots = record["environment"]["slots"]
    print(f"{len(results)} trials, {own:.0f} s of their own; {slots} at once")
    print(f"in all {sum(walls):.0f} s, {sum(walls) * slots / own - 1:+.1%} beyond their own")


if __name__ == "__main__":
    main()
