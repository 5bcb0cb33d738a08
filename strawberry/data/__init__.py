"""Data: corpora, tokenizers, packed token files, and batches.

A recipe's data, and the tokenizer of one of its runs:

    dataset = open_dataset(recipe)                  # corpus read, tokenizer trained, ids cached
    x, y = dataset.rows("train", 0, 4, block_size=256, seed=1337)  # the first four of that seed
    dataset.tokenizer.save(run / "tokenizer.json")
    tokenizer = load_run_tokenizer(run / "tokenizer.json", recipe)
"""

from strawberry.contracts.data import (
    Corpus,
    Dataset,
    DataSite,
    DataSource,
    Progress,
    Split,
    Task,
    TokenizerSource,
)
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.bpe import (
    PATTERNS,
    SPECIAL_TOKENS,
    BPETokenizer,
    byte_tokenizer,
    check_special,
    split_pattern,
)
from strawberry.data.corpora import HeldOutCorpus
from strawberry.data.corpus import FileCorpus
from strawberry.data.division import Division, HeldBack, check_division, divided_text
from strawberry.data.documents import read_documents
from strawberry.data.files import find_files
from strawberry.data.opening import load_run_tokenizer, open_dataset, sections
from strawberry.data.preparing import PreparedData, prepare
from strawberry.data.reading import read_bytes
from strawberry.data.texts import held_out, text_dataset
from strawberry.data.tokenfile import TokenWriter, open_tokens
from strawberry.data.tokenizer import load_tokenizer

__all__ = [
    "PATTERNS",
    "SPECIAL_TOKENS",
    "BPETokenizer",
    "Corpus",
    "DataSite",
    "DataSource",
    "Dataset",
    "Division",
    "FileCorpus",
    "HeldBack",
    "HeldOutCorpus",
    "PreparedData",
    "Progress",
    "Split",
    "Task",
    "TokenWriter",
    "Tokenizer",
    "TokenizerSource",
    "byte_tokenizer",
    "check_division",
    "check_special",
    "divided_text",
    "find_files",
    "held_out",
    "load_run_tokenizer",
    "load_tokenizer",
    "open_dataset",
    "open_tokens",
    "prepare",
    "read_bytes",
    "read_documents",
    "sections",
    "split_pattern",
    "text_dataset",
]
