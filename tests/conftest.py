"""Workers side by side take one thread each, or they would wait for each other's."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in subprocesses
os.environ.pop("CI", None)  # what a terminal shows is tested as a person sees it
os.environ["WANDB_MODE"] = "offline"  # no test talks to a service
os.fsync = lambda _: None  # no test cuts the power, and a disk takes milliseconds for each file
