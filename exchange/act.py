"""One act of a delivery or batch under way: when it began, at which steps it was, how it ended."""

import msgspec


class Act(msgspec.Struct):
    """steps: name and beginning of each; times are nanoseconds since 1970; outcome: a word or a refusal's code."""

    began_ns: int
    steps: list[tuple[str, int]] = []
    ended_ns: int = 0
    outcome: str = ""
