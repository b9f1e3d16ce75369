"""One load made by several generators: which of them makes which scenario.

Every generator computes the whole schedule and makes its own part of it, so that together they make exactly what one
would: each scenario once, at its time, with its row, its number and what is drawn by it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from holdfast_loadtests.schedule import Due


@dataclass(frozen=True)
class Share:
    """The part of generator `index`, from 0, of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no share {self.index} of {self.count}: expected 0 to {self.count - 1}")

    def takes(self, due: Due) -> bool:
        """Whether it is this generator's. One that holds a row goes by the row: only one generator may hold it."""
        number = due.row_index if due.scenario.rows else due.ordinal
        return number % self.count == self.index

    def of(self, schedule: Iterator[Due]) -> Iterator[Due]:
        """Its part of a schedule, in order."""
        return schedule if self.count == 1 else filter(self.takes, schedule)

    def rows(self, rows: int) -> int:
        """How many of so many rows it may hold."""
        return len(range(self.index, rows, self.count))

    def as_json(self) -> list[int]:
        """For another process."""
        return [self.index, self.count]

    @classmethod
    def of_json(cls, found: list[int]) -> Self:
        """What `as_json` wrote."""
        index, count = found
        return cls(index, count)


WHOLE: Final = Share()
"""The share of a load that has one generator."""
