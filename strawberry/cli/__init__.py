"""The command line: a file a verb. It parses and prints, and decides nothing."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def main() -> None:
    """The console script `strawberry`: run the command line and exit with its code."""
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
    """End a rank of several with all that an exit does, but for taking the interpreter apart.

    Threads of gloo's outlive that, since modules of torch's keep their group for good. One of them
    that wants the GIL then, to drop a tensor, is unwound by force, which aborts the process: a run
    that had come to its end would be told as killed.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (as multiprocessing does)
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
