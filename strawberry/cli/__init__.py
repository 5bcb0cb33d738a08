"""The command line: one module for each verb, which parses arguments and prints results."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def main() -> None:
    """Run the command line and exit with its code; the console script `strawberry`."""
    from strawberry.cli.streams import survive_readers

    outputs = survive_readers()
    arguments = sys.argv[1:]
    if arguments in ([], ["-h"], ["--help"]) and "_STRAWBERRY_COMPLETE" not in os.environ:
        # The overview needs neither typer nor rich, and answers in a tenth of their import time.
        from strawberry.cli.overview import overview
        from strawberry.cli.terminal import write

        write(overview())
        return
    from strawberry.cli.app import run

    code = run(arguments)
    sys.stdout.flush()
    if outputs[0].full is not None:
        sys.stderr.write(f"error: standard output: {outputs[0].full.strerror}\n")
        code = code or 1
    if "RANK" in os.environ:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End one of several ranks: run exit handlers, but don't finalise the interpreter.

    gloo's threads outlive finalisation, because torch modules keep their process group for good. A
    thread that then needs the GIL to release a tensor is unwound by force. That aborts the process,
    and a finished run would be reported as killed.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (as multiprocessing does)
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
