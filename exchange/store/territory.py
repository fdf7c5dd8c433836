"""辖区 In which divisions a node issues identifiers, and who does in the others. Each division has one writer."""

from collections.abc import Mapping

import msgspec
import polars as pl


class Territory(msgspec.Struct, frozen=True):
    """A node's share of the city.

    divisions: codes of those in which it issues identifiers; empty: in all that it has not delegated
    delegated: bureau by division code: the district centre that names the components there, in what it delivers
    """

    divisions: frozenset[str] = frozenset()
    delegated: Mapping[str, str] = {}

    def issues_in(self, division: str) -> pl.Expr:
        """Whether identifiers are issued here for the division in a column; never null."""
        elsewhere = pl.col(division).is_in(sorted(self.delegated))
        own = pl.col(division).is_in(sorted(self.divisions)) if self.divisions else pl.lit(True)
        return (own & ~elsewhere).fill_null(False)

    def given_to(self, bureau: str) -> frozenset[str]:
        """The divisions whose components a bureau names."""
        return frozenset(code for code, named_by in self.delegated.items() if named_by == bureau)


WHOLE: Territory = Territory()
