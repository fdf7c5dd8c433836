"""Whether a text is what some program made of one that it could not read: said, and not stored."""

from typing import Final

import polars as pl

# In order: made-up characters of a font (private use), what is put for octets that are none, the same read as GBK, two
# characters of GB 2312 read as ISO 8859-1, question marks with nothing else that says anything.
GARBLED: Final = (
    r"\p{Co}|\x{FFFD}|锟斤拷|(?:[\x{B0}-\x{F7}][\x{A1}-\x{FE}]){2}"
    r"|^[?\d\s_./()-]*\?\?[?\d\s_./()-]*$"
)


def garbled(text: pl.Expr) -> pl.Expr:
    """Boolean, null for null."""
    return text.str.contains(GARBLED)
