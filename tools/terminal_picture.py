"""Run a command in a pseudo-terminal and draw what it printed as an SVG.

    python tools/terminal_picture.py OUT.svg [--lines N] [--at SECONDS] -- COMMAND...

With `--at` the picture is the screen after that many seconds, while the command is running; the
command then runs to its end, unseen. Needs `pyte`, a terminal emulator.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import struct
import time
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, ROWS = 100, 32


def main() -> None:
    """Parse the arguments, run, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--at", type=float, default=None)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    screen = record(arguments.command, arguments.at)
    draw(screen, "$ " + " ".join(arguments.command), arguments.out)


def record(command: list[str], at: float | None) -> pyte.Screen:
    """The command's screen at its end, or after `at` seconds."""
    screen = pyte.Screen(COLUMNS, ROWS)
    kept: pyte.Screen | None = None
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the command has ended
                break
            if not data:
                break
            stream.feed(data)
        if at is not None and kept is None and time.monotonic() - began > at:
            kept = pyte.Screen(COLUMNS, ROWS)
            for y, row in screen.buffer.items():
                kept.buffer[y].update(row)
    os.waitpid(process, 0)
    return kept or screen


def draw(screen: pyte.Screen, title: str, out: Path) -> None:
    """Write the screen as an SVG, without the blank lines at its end."""
    lines = []
    for y in range(ROWS):
        line = Text()
        for x in range(COLUMNS):
            cell = screen.buffer[y].get(x, screen.default_char)
            line.append(cell.data, style_of(cell))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        for line in lines:
            console.print(line)
        out.write_text(console.export_svg(title=title))


def style_of(cell: pyte.screens.Char) -> Style:
    """A cell's colours and weight."""
    names = {"brown": "yellow", "default": None}
    color = names.get(cell.fg, cell.fg)
    if color is not None and len(color) == 6 and all(c in "0123456789abcdef" for c in color):
        color = f"#{color}"
    return Style(color=color, bold=cell.bold, reverse=cell.reverse)


if __name__ == "__main__":
    main()
