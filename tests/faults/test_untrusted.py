"""Section E: files and plugins from strangers."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from strawberry_original.importing import import_file
from strawberry_original.pickled import load_plain

from strawberry.cli.app import run as command
from strawberry.data import load_tokenizer
from strawberry.errors import DamagedCheckpointError, StrawberryError
from strawberry.generation import load_run
from strawberry.runs import checkpoint
from strawberry.training import train
from tests.faults.conftest import Figure, reseal
from tests.training.conftest import RecipeMaker

RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn",
             "ctypes.dlopen", "pickle.find_class")  # fmt: skip
NETWORK = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.sendto")
OPENS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink")


class Audit:
    """The events of an interpreter, noted while it listens; a hook can't be taken away again."""

    def __init__(self) -> None:
        self.listening = False
        self.seen: list[tuple[str, tuple[Any, ...]]] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening:
            self.seen.append((event, arguments))

    @contextmanager
    def watch(self) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
        """Listen within this block."""
        self.seen = []
        self.listening = True
        try:
            yield self.seen
        finally:
            self.listening = False


@pytest.fixture(scope="module")
def audit() -> Audit:
    return Audit()


class Payload:
    """Leaves its mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def by_build(mark: Path) -> bytes:
    """A program written by hand: it looks `posix.mkdir` up with STACK_GLOBAL and calls it."""
    name = str(mark).encode()
    return (
        b"\x80\x04\x8c\x05posix\x94\x8c\x05mkdir\x94\x93\x94\x8c"
        + bytes([len(name)]) + name + b"\x94\x85\x94R\x94."
    )  # fmt: skip


def archive(path: Path, entries: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> None:
    """A zip as torch.save writes them, with these entries."""
    with zipfile.ZipFile(path, "w", compress) as made:
        for name, content in entries.items():
            made.writestr(name, content)


def attacks(folder: Path, mark: Path) -> list[Path]:
    """Files that would leave the mark, or fill the memory, if they were read with trust."""
    payload = pickle.dumps(Payload(mark))
    plain = pickle.dumps({"dataset": [[1, 2]]})
    contents = {
        "a.bin": payload,
        "b.bin": by_build(mark),
        "c.bin": pickle.dumps({"pattern": Payload(mark), "special": {}, "vocab": {}}),
        "d.bin": pickle.dumps({"dataset": [[1, 2], Payload(mark)]}, 2),
        "e.pkl": b"cposix\nmkdir\n(S'" + str(mark).encode() + b"'\ntR.",  # protocol 0
        "f.safetensors": payload,
        "g.bin": plain + payload,  # one after the other
        "h.bin": b"\x80\x05r\xff\xff\xff\xff.",  # an entry at 4 billion
        "i.bin": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 50) + b"x.",  # a petabyte
        "j.bin": b"\x80\x02" + b"]q\x00" + b"h\x00a" * 3 + b".",  # a list that holds itself
        "k.bin": b"\x80\x04\x82\x01.",  # the extension registry
        "l.bin": b"\x80\x04\x8c\x01xQ.",  # a persistent id
        "m.strawberry": payload,
    }
    made = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        made.append(folder / name)
    torch.save({"model": {}, "hyperparams": Payload(mark)}, folder / "n.strawberry")
    torch.save(Payload(mark), folder / "o.strawberry", _use_new_zipfile_serialization=False)
    archive(folder / "p.strawberry", {"archive/data.pkl": payload, "archive/version": b"3"})
    archive(folder / "q.strawberry", {"../../data.pkl": payload})
    archive(folder / "r.strawberry", {"/data.pkl": payload})
    archive(folder / "s.strawberry", {"a/data.pkl": b"\0" * (8 << 20)}, zipfile.ZIP_DEFLATED)
    archive(folder / "t.strawberry", {"a/code/m.py": b"import os", "a/constants.pkl": payload,
                                      "a/data.pkl": payload, "a/version": b"3"})  # fmt: skip
    return [*made, *(folder / f"{name}.strawberry" for name in "nopqrst")]


READERS: dict[str, Callable[[Path], object]] = {
    "import": lambda path: import_file(path, path.with_name("out")),
    "tokenizer": load_tokenizer,
    "encoder": lambda path: import_file(path, path.with_name("out"), encoder=path),
}


@pytest.mark.faults(36)
def test_nothing_in_a_file_is_run(tmp_path: Path, audit: Audit, figure: Figure) -> None:
    """Pickles of every shape, by every door: refused with the file's name, and no code was run."""
    mark = tmp_path / "mark"
    files = attacks(tmp_path, mark)
    tried = refused = 0
    for read in READERS.values():
        for path in files:
            tried += 1
            with audit.watch() as seen, pytest.raises(StrawberryError, match=path.name):
                read(path)
            refused += 1
            assert not mark.exists(), path.name
            assert [event for event, _ in seen if event.startswith(RUNS_CODE)] == [], path.name
            assert not (tmp_path / "out").exists()
    figure(tried, refused, "refused", executed=0)


@pytest.mark.faults(36, control=True)
def test_read_with_trust_they_would_run(tmp_path: Path, audit: Audit) -> None:
    """Plain unpickling leaves the mark, and the hook sees what it looked up."""
    mark = tmp_path / "mark"
    first, second, *_ = attacks(tmp_path, mark)
    for path in (first, second):
        with audit.watch() as seen:
            pickle.loads(path.read_bytes())
        assert mark.exists()
        mark.rmdir()
        assert any(event.startswith(RUNS_CODE) for event, _ in seen)
    with pytest.raises(StrawberryError):
        load_plain(first)


@pytest.mark.faults(36)
def test_a_runs_folder_holds_nothing_to_run(
    make_recipe: RecipeMaker, tmp_path: Path, audit: Audit
) -> None:
    """A run from a stranger, all of it payloads, hashes in order: refused, none executed."""
    train(make_recipe(train={"max_iters": 1}), tmp_path / "run")
    path = checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].path
    mark = tmp_path / "mark"
    for file in path.glob("*.*s*"):
        if file.name != "manifest.json":
            file.write_bytes(pickle.dumps(Payload(mark)))
    reseal(path)
    with audit.watch() as seen, pytest.raises(StrawberryError):
        load_run(tmp_path / "run")
    assert not mark.exists()
    assert [event for event, _ in seen if event.startswith(RUNS_CODE)] == []


def header(tensors: dict[str, Any], data: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file with this header, and a length that may be another."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "100 MB": header({}, size=100 << 20),
    "2^63": header({}, size=1 << 63),
    "empty": b"",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "overlap": header({"a": tensor(0, 4, [1]), "b": tensor(0, 4, [1])}, bytes(4)),
    "negative": header({"a": tensor(-4, 4, [2])}, bytes(8)),
    "beyond": header({"a": tensor(0, 1 << 40, [1 << 38])}, bytes(8)),
    "hole": header({"a": tensor(4, 8, [1])}, bytes(8)),
    "overflow": header({"a": tensor(0, 4, [1 << 62, 1 << 62])}, bytes(4)),
    "dtype": header({"a": tensor(0, 4, [1], "PICKLE")}, bytes(4)),
    "twice": b'\x3a\0\0\0\0\0\0\0{"a":1,"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}0000',
    "polyglot": header({"a": tensor(0, 4, [1])}, bytes(4)) + b"PK\x05\x06" + bytes(18),
    "other names": save({"w": torch.zeros(2)}),
    "other shape": save({"embedding.weight": torch.zeros(2)}),
}


@pytest.fixture
def stranger(make_recipe: RecipeMaker, tmp_path: Path) -> Path:
    """The checkpoint of a run."""
    train(make_recipe(train={"max_iters": 1}), tmp_path / "run")
    return checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].path


@pytest.mark.faults(37)
def test_hostile_headers_are_told(stranger: Path, figure: Figure) -> None:
    """Weights whose header lies, hashes in order: an error of ours, and no memory for the lie."""
    import resource

    file = stranger / "model.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = 0
    for content in HEADERS.values():
        file.write_bytes(content)
        reseal(stranger)
        with pytest.raises(StrawberryError):
            load_run(stranger.parents[1])
        told += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    figure(len(HEADERS), told, "refused")


@pytest.mark.faults(37, control=True)
def test_honest_weights_still_load(stranger: Path) -> None:
    """What the hostile ones are put in place of is accepted, resealed in the same way."""
    file = stranger / "model.safetensors"
    file.write_bytes(save(load_file(file)))
    reseal(stranger)
    assert load_run(stranger.parents[1]).step == 1


@pytest.mark.slow
@pytest.mark.faults(37)
def test_headers_at_random(stranger: Path, figure: Figure) -> None:
    """Two thousand damaged files: each loads or is found to be damaged, by an error of ours."""
    chance = random.Random(37)
    file = stranger / "model.safetensors"
    good = file.read_bytes()
    head = 8 + int.from_bytes(good[:8], "little")
    for _ in range(2000):
        content = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(head)
            content[at] = chance.choice([chance.randrange(256), *b'0123456789{}[]",:-'])
        file.write_bytes(content[: chance.choice([None, chance.randrange(len(content))])])
        reseal(stranger)
        with contextlib.suppress(DamagedCheckpointError):
            checkpoint.load(stranger)
    figure(2000, 2000, "loaded or refused")


@pytest.mark.faults(40)
def test_building_needs_no_network_and_writes_nothing(
    recipe_file: Callable[..., Path], tmp_path: Path, audit: Audit, figure: Figure
) -> None:
    """`build` opens no socket and no file to write; `train` writes in its run and the cache."""
    recipe = str(recipe_file(train={"max_iters": 1}))
    outside = sockets = 0
    for arguments in (["build", recipe], ["train", recipe, "--run-dir", str(tmp_path / "run")]):
        with audit.watch() as seen:
            assert command(arguments) == 0
        allowed = (str(tmp_path / "run"), os.environ["STRAWBERRY_CACHE"], "/dev/null")
        allowed = allowed if arguments[0] == "train" else ("/dev/null",)
        sockets += sum(event in NETWORK for event, _ in seen)
        outside += sum(not str(path).startswith(allowed) for path in _written(seen))
    assert (sockets, outside) == (0, 0)
    figure(2, 2, "commands", sockets=sockets, writes_outside=outside)


def _written(seen: list[tuple[str, tuple[Any, ...]]]) -> Iterator[str]:
    """The paths that were opened to be written, made, moved or removed; bytecode caches aside."""
    for event, arguments in seen:
        if event not in OPENS or not isinstance(arguments[0], (str, bytes, Path)):
            continue
        path = os.fsdecode(arguments[0])
        reading = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not reading and "__pycache__" not in path:
            yield path


@pytest.mark.faults(40, control=True)
def test_what_it_would_write_or_ask_for_is_seen(tmp_path: Path, audit: Audit) -> None:
    """A file, a folder and a socket are noted by the same watch."""
    import socket

    with audit.watch() as seen:
        (tmp_path / "file").write_text("x")
        (tmp_path / "folder").mkdir()
        socket.socket().close()
    assert list(_written(seen)) == [str(tmp_path / "file"), str(tmp_path / "folder")]
    assert any(event in NETWORK for event, _ in seen)


@pytest.mark.faults(38)
def test_a_plugin_that_crashes_the_interpreter_is_named(tmp_path: Path) -> None:
    """SIGSEGV at import: the file is in the trace, and `--no-plugin` and `--help` work."""
    site = tmp_path / "site"
    info = site / "crash-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crash\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[strawberry]\ncrash = crash_plugin\n")
    (site / "crash_plugin.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )

    def strawberry(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "strawberry", *arguments], check=False,
                              capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(site)})  # fmt: skip

    crashed = strawberry("plugins")
    assert crashed.returncode == -11
    assert "crash_plugin.py" in crashed.stderr
    assert strawberry("--help").returncode == 0
    assert strawberry("--no-plugin", "crash", "plugins").returncode == 0
