"""Text as it comes is the text of all ids, for tokenizers of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from strawberry.contracts.tokenizer import Tokenizer as Contract
from strawberry.data.bpe import byte_tokenizer
from strawberry.data.streaming import TextStream
from strawberry.data.tokenizer import HubTokenizer

TEXTS = [
    "the of and to", "to and of the", "isn't it, then? (x_1 != 0)", "and the other of them, to",
    "caf\u00e9 na\u00efve \u4e16\u754c \U0001f353 and then", "  two  blanks\n\tand lines\n",
]  # fmt: skip
SPECIAL = ["<unk>", "<s>", "</s>", "[PAD]", "|"]


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: blanks as marks, unknown characters as bytes, the first blank dropped."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581?[^\u2581]+|\u2581"), "isolated")
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        [text for text in TEXTS if text.isascii()],
        trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL + single, show_progress=False),
    )
    return made


def byte_level() -> Tokenizer:
    """GPT-2's kind."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def unigram() -> Tokenizer:
    """T5's kind, with Metaspace."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        ),
    )
    return made


def word_piece() -> Tokenizer:
    """BERT's kind: pieces within a word are marked, and blanks before punctuation go."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False)
    )
    return made


def word_ends() -> Tokenizer:
    """GPT-1's kind: the ends of words are marked."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.BPEDecoder("</w>")
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=99, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
        ),
    )
    return made


def words() -> Tokenizer:
    """Whole words, without a decoder."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(
        TEXTS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    )
    return made


def letters() -> Tokenizer:
    """CTC's kind, which drops repetitions."""
    made = words()
    made.decoder = decoders.CTC(pad_token="[PAD]")
    return made


def replaced(pattern: str | Regex) -> Callable[[], Tokenizer]:
    """GPT-2's kind, with a text of several ids that becomes another one in the end."""

    def kind() -> Tokenizer:
        made = byte_level()
        made.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(pattern, "X")])
        return made

    return kind


KINDS = [byte_fallback, byte_level, unigram, word_piece, word_ends, words, letters]


def streamed(tokenizer: Contract, before: Sequence[int], ids: Sequence[int]) -> list[str]:
    """The pieces of a stream, and what is left at its end."""
    stream = TextStream(tokenizer, before)
    return [*(stream.add(i) for i in ids), stream.end()]


def added(tokenizer: Contract, before: Sequence[int], ids: Sequence[int]) -> str | None:
    """What ids add to a text, decoded whole; None where they change what was before them."""
    first, whole = tokenizer.decode(list(before)), tokenizer.decode([*before, *ids])
    return whole.removeprefix(first) if whole.startswith(first) else None


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_is_decoding_the_whole(kind: Callable[[], Tokenizer]) -> None:
    """Texts and random ids, after prompts and without; the end of what is drawn cut anywhere."""
    tokenizer = HubTokenizer(kind().to_str(), "test")
    draw = random.Random(0)
    cases = [(text, []) for text in map(tokenizer.encode, TEXTS)]
    cases += [(ids[:cut], ids[cut:]) for ids, _ in cases for cut in range(len(ids))]
    for length in (*range(40), 700):
        ids = draw.choices(range(tokenizer.vocab_size), k=length)
        cut = draw.randrange(length + 1)
        cases += [([], ids), (ids[:cut], ids[cut:])]
    for before, ids in cases:
        expected = added(tokenizer, before, ids)
        if expected is not None:
            pieces = streamed(tokenizer, before, ids)
            assert "".join(pieces) == expected
            stream = TextStream(tokenizer, before)
            for i in ids:
                stream.append(i)
            assert stream.text() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_silent_ids_are_part_of_the_stream(kind: Callable[[], Tokenizer]) -> None:
    """Any mixture of ids with and without emitted text gives the text of all."""
    tokenizer = HubTokenizer(kind().to_str(), "test")
    for text in TEXTS:
        ids = tokenizer.encode(text)
        stream = TextStream(tokenizer)
        pieces = []
        for number, i in enumerate(ids):
            if number % 3:
                stream.append(i)
            else:
                pieces.append(stream.add(i))
        assert "".join(pieces) + stream.end() == tokenizer.decode(ids)


@pytest.mark.parametrize("pattern", ["abcd", Regex("a.*d")])
def test_what_may_yet_be_replaced_waits(pattern: str | Regex) -> None:
    """Letter by letter: a text that becomes another one is not given before that is decided."""
    tokenizer = HubTokenizer(replaced(pattern)().to_str(), "test")
    for text in ("abcd", "xabcdy", "ababcd", "abc", "aab", "abcdabcd", "caf\u00e9 a"):
        ids = [i for letter in text for i in tokenizer.encode(letter)]
        assert "".join(streamed(tokenizer, [], ids)) == tokenizer.decode(ids), text


def test_the_texts_that_were_wrong() -> None:
    """Blanks of a llama's words, and an accent in two ids of GPT-2's, come as they were."""
    llama = HubTokenizer(byte_fallback().to_str(), "test")
    pieces = streamed(llama, [], llama.encode("the of and to"))
    assert pieces == ["", "the", " of", " and", " to"]
    assert "".join(streamed(llama, llama.encode("the of"), llama.encode("and")[:1])) == " and"
    gpt2 = HubTokenizer(byte_level().to_str(), "test")
    assert "".join(streamed(gpt2, [], gpt2.encode("caf\u00e9"))) == "caf\u00e9"


def test_a_wrong_byte_spoils_a_run_of_bytes_and_nothing_that_was_given() -> None:
    """The library makes all of such a run replacements, so none of it is given before it ends."""
    llama = HubTokenizer(byte_fallback().to_str(), "test")
    ids = llama.encode("\u4e16")[-3:] + llama.encode("caf\u00e9")[-1:]
    assert llama.decode(ids) == 4 * "\ufffd"
    assert streamed(llama, [], ids) == ["", "", "", "", 4 * "\ufffd"]


def test_characters_wait_for_their_last_byte() -> None:
    """A character of several ids comes out whole; a broken one becomes the replacement."""
    tokenizer, text = byte_tokenizer(["<|eot|>"]), "a\u00e9\u20ac\U0001f353"
    pieces = streamed(tokenizer, [], list(text.encode()))
    assert [piece for piece in pieces if piece] == list(text)
    assert "".join(streamed(tokenizer, [], list(b"a\xe2\x82"))) == "a\ufffd"
    assert "".join(streamed(tokenizer, [], list(b"\xff\xffa\xffb\xff"))) == (
        "\ufffd\ufffda\ufffdb\ufffd"
    )


@pytest.mark.parametrize("kind", [byte_fallback, byte_level, unigram, word_piece])
def test_bytes_of_single_ids_add_up(kind: Callable[[], Tokenizer]) -> None:
    """Within a text each id adds its bytes, so that bits per byte can count them one by one."""
    tokenizer = HubTokenizer(kind().to_str(), "test")
    for text in TEXTS:
        ids = tokenizer.encode(text)
        whole = tokenizer.decode(ids).encode()
        assert tokenizer.decode_bytes(ids) in (whole, b" " + whole)  # a text's first blank goes
        parts = [tokenizer.decode_bytes([i]) for i in ids]
        assert b"".join(parts) == tokenizer.decode_bytes(ids)
