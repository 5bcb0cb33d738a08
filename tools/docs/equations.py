"""Equations of docstrings, drawn: plain text such as `o_t = q_t S_t` as MathML.

Docstrings have equations in code font, written as a person types them. A browser draws MathML by
itself, so that a page needs no script and no fonts.
"""

from __future__ import annotations

import html
import re
from typing import Final

from latex2mathml.converter import convert

_GREEK: Final = r"(alpha|beta|gamma|delta|epsilon|eta|theta|kappa|lambda|mu|nu|pi|rho|sigma|tau)"
_MORE: Final = r"(phi|chi|psi|omega)"
GREEK: Final = re.compile(rf"{_GREEK}|{_MORE}", re.IGNORECASE)
SYMBOLS: Final = {
    "<-": r"\leftarrow ", "->": r"\rightarrow ", "||": r"\,\Vert\,", "...": r"\dots ",
    " . ": r"\cdot ", "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ",
    "|": r"\mid ", "*": r"\cdot ", "~": r"\sim ",
}  # fmt: skip
LARGE: Final = {"sum": r"\sum", "prod": r"\prod"}
_TOKEN: Final = re.compile(
    r"(?P<root>sqrt\()|(?P<field>[a-z]+_[a-z]{3,}(?![a-z_]*\())|(?P<word>[A-Za-z]+)"
    r"|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"|(?P<symbol> \. |<-|->|\|\||\.\.\.|<=|>=|!=|[|*~])|(?P<script>[_^])|(?P<other>.)"
)
_LOOKS: Final = re.compile(
    r" = | <- |\^|_\{|\bsqrt\(|\bsum_|[A-Za-z]_[a-z]+ [A-Za-z(]| / | \* | \+ "
)
_CODE: Final = re.compile(r"[\"'#]|--|\w\(\)|\.\w{2,}|^[a-z_]+: |\w_\w{3,}\(|\bstrawberry\b|\bx\[")


def is_equation(text: str) -> bool:
    """Whether what stands in code font is an equation, and no code or recipe."""
    return bool(_LOOKS.search(text)) and not _CODE.search(text)


def latex(text: str) -> str:
    r"""The LaTeX of an equation.

    >>> latex("softmax(q k^T / sqrt(D)) v")
    '\\mathrm{softmax}(q k^{T} / \\sqrt{D}) v'
    """
    return _sequence(text)


def _sequence(text: str) -> str:
    parts, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None
        at = match.end()
        if match["root"]:
            end = _closing(text, at)
            parts.append(rf"\sqrt{{{_sequence(text[at:end])}}}")
            at = end + 1
        elif match["field"]:
            parts.append(r"\mathtt{" + match["field"].replace("_", r"\_") + "}")
        elif match["word"]:
            parts.append(_word(match["word"], before=text[: match.start()]))
        elif match["symbol"]:
            parts.append(SYMBOLS[match["symbol"]])
        elif match["script"]:
            script, at = _script(text, at)
            parts.append(match["script"] + f"{{{script}}}")
        else:
            parts.append({"{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&"}.get(match[0], match[0]))
    return "".join(parts)


def _script(text: str, at: int) -> tuple[str, int]:
    """A subscript or superscript from `at` on, and where it ends."""
    if text[at : at + 1] == "(":
        end = _closing(text, at + 1) + 1
        return _sequence(text[at:end]), end
    if text[at : at + 1] == "{":
        end = text.find("}", at)
        end = len(text) if end < 0 else end
        return _sequence(text[at + 1 : end]), end + 1
    match = re.compile(r"-?\w+?(?=[_^]|\W|$)").match(text, at)
    return (_sequence(match[0]), match.end()) if match else ("", at)


def _word(word: str, before: str = "") -> str:
    if word in LARGE:
        return LARGE[word]
    if GREEK.fullmatch(word):
        return f"\\{word} "
    after_a_word = re.search(r"[A-Za-z]{2,} $", before) is not None
    if len(word) == 1:
        return rf"\,{word}" if after_a_word else word
    apart = r"\," if before.endswith(" ") and before.rstrip()[-1:].isalnum() else ""
    return rf"{apart}\mathrm{{{word}}}"


def _closing(text: str, at: int) -> int:
    """The place of the bracket that closes the one before `at`."""
    depth = 1
    for place in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)


def drawn(markdown: str) -> str:
    """Markdown in which equations in code font are MathML; the rest is as it was."""
    return re.sub(r"`([^`\n]+)`", lambda m: _mathml(m[1]) if is_equation(m[1]) else m[0], markdown)


def _mathml(text: str) -> str:
    math = convert(latex(text))
    math = math.replace("<math ", f'<math alttext="{_escaped(text)}" ', 1)
    # Markdown takes a line that begins with `<math` for a block, and ends the paragraph after it.
    return f'<span class="equation">{math}</span>'


def _escaped(text: str) -> str:
    return html.escape(text).replace("|", "&#124;")
