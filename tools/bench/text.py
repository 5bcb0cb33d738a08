"""Learning a vocabulary and encoding text: ours, libraries, and pure Python.

    python tools/bench/text.py [PATH...] [--vocab-size 8192] [--megabytes 10] [--original PATH]
        [--kilobytes 100] [--merges 256] [--json]

The text is that of the given files, or the source code of Python's own standard library. Ours is
the work of `strawberry tokenizer train`, and the resulting tokenizer. `--original` is the folder
(or `encoder.py`) of the original project, whose encoder is pure Python. It learns `--merges` merges
of `--kilobytes`, and so does ours for comparison. It encodes with our vocabulary, from the left and
not by the rank of merges, so its ids may differ, but must represent the same text. CPU seconds are
given too, for a machine with other users.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from strawberry.data import PreparedData, bpe, prepare
from strawberry.data.bpe import BPETokenizer

REPEATS = 3
PATTERN = "gpt4o"  # what the original's encoder splits by


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=10.0, help="at most so much text")
    parser.add_argument(
        "--original", metavar="PATH", help="the original project's folder or encoder.py"
    )
    parser.add_argument("--kilobytes", type=float, default=100.0, help="text for pure Python")
    parser.add_argument("--merges", type=int, default=256, help="merges for pure Python")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options)
    print(json.dumps(result, indent=2) if options.json else table(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    text = corpus(options.paths)[: int(options.megabytes * 1e6)]
    made, learning = best(lambda: learn(text, options.vocab_size))
    made.encode("warm")
    ids, alone = best(lambda: made._encode(text, special=False))  # noqa: SLF001 (one thread)
    parts, together = best(lambda: made.encode_batch([text])[0])
    assert parts.tolist() == ids.tolist(), "pieces encoded apart give other ids"
    size = len(text.encode())
    rows = {
        "learn: ours": row(learning, size),
        "encode: ours, one thread": row(alone, size),
        "encode: ours, all cores": row(together, size),
        **libraries(made, text, size),
        **prepared(made, text),
    }
    if options.original:
        rows |= against_original(made, text[: int(options.kilobytes * 1e3)], options)
    return {
        "vocab_size": made.vocab_size,
        "bytes": size,
        "bytes_per_token": size / len(ids),
        "rows": rows,
    }


def corpus(paths: list[Path]) -> str:
    """The text of files, or of the standard library's modules."""
    if not paths:
        folder = Path(json.__file__).parents[1]
        paths = sorted(file for file in folder.rglob("*.py") if "site-packages" not in file.parts)
    return "\n".join(file.read_text(errors="replace") for file in paths)


def learn(text: str, vocab_size: int) -> BPETokenizer:
    """A vocabulary of ours."""
    return bpe.train_bpe([text], vocab_size, pattern=PATTERN)


def libraries(made: BPETokenizer, text: str, size: int) -> dict[str, Any]:
    """The `tokenizers` library: learning, and encoding with our file."""
    import tokenizers

    def train() -> Any:
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=made.vocab_size,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pieces = [text[i : i + 65536] for i in range(0, len(text), 65536)]
        learner.train_from_iterator(pieces, trainer)
        return learner

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokenizer.json")
        made.save(file)
        fast = tokenizers.Tokenizer.from_file(str(file))
    lines = text.splitlines(keepends=True)
    _, learning = best(train, 1)
    _, encoding = best(lambda: fast.encode_batch_fast(lines, add_special_tokens=False), 1)
    return {
        "learn: tokenizers": row(learning, size),
        "encode: tokenizers, all cores": row(encoding, size),
    }


def prepared(made: BPETokenizer, text: str) -> dict[str, Any]:
    """`strawberry data prepare` with either tokenizer: all of its encoding, ids on disk.

    Beside each stands what the library that encodes takes for the same documents alone, which is
    the limit; `tokens_per_second` of both.
    """
    import tokenizers

    documents = [text[i : i + 16384] for i in range(0, len(text), 16384)]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=made.vocab_size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    theirs.train_from_iterator(documents[:64], trainer)
    limits: dict[str, tuple[Callable[[Path], None], Callable[[], Any]]] = {
        "ours": (made.save, lambda: made.encode_batch(documents)),
        "tokenizers": (
            lambda file: theirs.save(str(file)),
            lambda: theirs.encode_batch_fast(documents, add_special_tokens=False),
        ),
    }
    rows: dict[str, Any] = {}
    size = len(text.encode())
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "text.jsonl")
        lines.write_text("".join(json.dumps(each) + "\n" for each in documents))
        for name, (save, encode) in limits.items():
            file = Path(folder, f"{name}.json")
            save(file)
            (done, clock, cpu), alone = packed(lines, file, Path(folder, name)), best(encode)[1]
            count = sum(done.meta.n_tokens.values())
            for what, seconds in ((f"prepare: {name}", (clock, cpu)), (f"alone: {name}", alone)):
                rows[what] = {**row(seconds, size), "tokens_per_second": count / seconds[0]}
                rows[what]["tokens_per_cpu_second"] = count / seconds[1]
    return rows


def packed(lines: Path, tokenizer: Path, out: Path) -> tuple[PreparedData, float, float]:
    """A prepared folder, and the least seconds of its encoding, by the clock and of CPU time."""
    found = []
    for number in range(REPEATS):
        cpu = time.process_time()
        done = prepare([str(lines)], out / str(number), tokenizer=tokenizer, cache=out / "cache")
        spent = time.process_time() - cpu  # reading and dividing, which is little, among it
        found.append((done, done.encode_seconds, spent))
    return found[0][0], min(clock for _, clock, _ in found), min(cpu for _, _, cpu in found)


def against_original(made: BPETokenizer, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """The pure-Python encoder of the original project, and ours at the same work."""
    encoder = from_file(Path(options.original)).Encoder()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text.txt")
        file.write_text(text)

        def train() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                encoder.train([str(file), False], vocab_size=256 + options.merges)

        _, learning = best(train, 1)
    _, ours = best(lambda: learn(text, 256 + options.merges + len(bpe.SPECIAL_TOKENS)))
    encoder.vocab = dict(enumerate(made.tokens))
    ids, encoding = best(lambda: encoder.encode(text, allowed_special="none"), 1)
    mine, fast = best(lambda: made._encode(text, special=False))  # noqa: SLF001 (one thread)
    whole = all(made.decode_bytes(found) == text.encode() for found in (ids, mine.tolist()))
    size = len(text.encode())
    small = f"{size / 1e3:.0f} KB"
    return {
        f"learn {options.merges} of {small}: the original": row(learning, size),
        f"learn {options.merges} of {small}: ours": row(ours, size),
        f"encode {small}: the original": {**row(encoding, size), "whole": whole},
        f"encode {small}: ours, one thread": row(fast, size),
    }


def from_file(path: Path) -> ModuleType:
    """The original's `encoder.py`, whose neighbours it imports by name."""
    file = path / "encoder.py" if path.is_dir() else path
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location("original_encoder", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def best(run: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, tuple[float, float]]:
    """The function's result, and its minimum seconds by the clock and of CPU time."""
    found: list[tuple[float, float]] = []
    result = None
    for _ in range(repeats):
        clock, cpu = time.perf_counter(), time.process_time()
        result = run()
        found.append((time.perf_counter() - clock, time.process_time() - cpu))
    return result, (min(c for c, _ in found), min(p for _, p in found))


def row(seconds: tuple[float, float], size: int) -> dict[str, Any]:
    """Seconds and megabytes a second."""
    clock, cpu = seconds
    return {
        "seconds": clock,
        "cpu_seconds": cpu,
        "megabytes_per_second": size / 1e6 / clock,
        "megabytes_per_cpu_second": size / 1e6 / cpu,
    }


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['bytes'] / 1e6:.2f} MB, vocabulary {result['vocab_size']:,}, "
        f"{result['bytes_per_token']:.2f} bytes a token",
        f"{'':36}{'s':>9}{'MB/s':>9}{'CPU s':>9}{'MB/CPU s':>10}{'M tokens/s':>12}",
    ]
    for name, one in result["rows"].items():
        lost = "" if one.get("whole", True) else "  OTHER TEXT"
        lines.append(
            f"{name:36}{one['seconds']:>9.3f}{one['megabytes_per_second']:>9.2f}"
            f"{one['cpu_seconds']:>9.3f}{one['megabytes_per_cpu_second']:>10.2f}"
            f"{_millions(one.get('tokens_per_second')):>12}{lost}"
        )
    return "\n".join(lines)


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


if __name__ == "__main__":
    main()
