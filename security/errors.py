"""Whose turn it is when something goes wrong, and the sentence each code stands for.

The class says who has to act; the code says what happened, stands in receipts and never changes meaning.
Codes and their sentences are data: `refusals.toml` beside this file.
"""

import functools
import tomllib
import traceback
from pathlib import Path
from typing import Final

import msgspec

# Refusals that are nobody's fault who sends: told and entered like others, and the same message may come again later.
FOR_NOW: Final = frozenset({"timestamp.overdue", "flow.too_many", "flow.feed_stopped"})
# Those of them that come in hundreds a second: entered by their count, one entry a sender, feed and minute.
CROWDS: Final = frozenset({"flow.too_many", "flow.feed_stopped"})


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a code says to a person: what happened, and the next step, in Chinese and English."""

    zh: str
    en: str
    next_zh: str
    next_en: str


@functools.cache
def sentences() -> dict[str, Sentence]:
    """Every refusal code with its sentence, from `refusals.toml`."""
    text = (Path(__file__).parent / "refusals.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Sentence])


class ExchangeError(Exception):
    """Anything that the bus says went wrong.

    code:   a key of `refusals.toml`, form `area.what_happened`
    detail: which one, for whoever has to act: an id, a name, a number, a path; never payload content or a secret
    """

    code: str
    detail: str

    @property
    def sentence(self) -> Sentence:
        """What happened and the next step, for a person."""
        return sentences()[self.code]


class Refusal(ExchangeError):
    """The sender must change something. Acknowledged, audited, not retried.

    reference: number of the audit entry that this refusal stands in, once it does; of what is entered by its count,
               and of strangers, a number of no entry
    retry_after_s: of what may be sent again as it is, when; 0 where nothing is said of it
    """

    reference = ""
    retry_after_s = 0

    def __init__(self, code: str, detail: str = "") -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {self.sentence.en}" + (f" [{detail}]" if detail else ""))


class Unavailable(ExchangeError):
    """Nobody is at fault; try later. Not acknowledged, so the transport sends again."""

    code = "exchange.unavailable"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class Misconfigured(ExchangeError):
    """The operator must change a file, a setting or the command. The process does not start.

    detail: what exactly, in English, as its log says it: the code's sentence is general, and has the Chinese
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


class AuditBroken(ExchangeError):
    """A security officer must look: evidence or log do not say what they said. Stop taking messages."""

    code = "audit.broken"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


def places(problem: BaseException) -> str:
    """An exception as a log may hold it: its type and the last places it passed. Its own words may quote content."""
    passed = traceback.extract_tb(problem.__traceback__)[-4:]
    return " < ".join([type(problem).__name__, *(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(passed))])
