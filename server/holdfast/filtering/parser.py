"""From a filter's text to a tree.

The grammar is AIP-160's, without functions and words alone:

    expression = factor { [AND] factor }
    factor     = term { OR term }
    term       = [NOT | -] ( "(" expression ")" | field operator value )
"""

from dataclasses import dataclass

from holdfast.filtering.scanner import Literal, Path, Scanner, refusal, shown

DEPTH_MAX = 32
"""Most parentheses and negations inside each other: far more than people write, far less than the stack holds."""

TERMS_MAX = 200
"""Most comparisons in a filter: each is made for every agent of a list."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator value`."""

    path: Path
    operator: str
    literal: Literal


@dataclass(frozen=True, slots=True)
class Not:
    """What the operand does not match."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class All:
    """What each operand matches; everything if there is none."""

    operands: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """What some operand matches."""

    operands: tuple["Node", ...]


Node = Comparison | Not | All | Either


def parse(text: str) -> Node:
    """The tree of a filter; `All(())` for an empty one.

    Raises:
        HoldfastError: INVALID_FIELD about `filter`, with the position.
    """
    parser = _Parser(Scanner(text))
    if parser.scanner.is_at_end:
        return All(())
    tree = parser.expression(0)
    parser.end()
    return tree


class _Parser:
    """Recursive, but never deeper than `DEPTH_MAX`."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self._terms = 0

    def expression(self, depth: int) -> Node:
        operands = [self._factor(depth)]
        while not self.scanner.is_at_end and not self.scanner.text.startswith(")", self.scanner.position):
            self.scanner.take_keyword("AND")
            operands.append(self._factor(depth))
        return operands[0] if len(operands) == 1 else All(tuple(operands))

    def end(self) -> None:
        """Refuses what is left."""
        if not self.scanner.is_at_end:
            raise refusal(self.scanner.position, f"{self.scanner.rest} does not belong here")

    def _factor(self, depth: int) -> Node:
        operands = [self._term(depth)]
        while self.scanner.take_keyword("OR"):
            operands.append(self._term(depth))
        return operands[0] if len(operands) == 1 else Either(tuple(operands))

    def _term(self, depth: int) -> Node:
        scanner = self.scanner
        if depth > DEPTH_MAX:
            raise refusal(scanner.position, f"nested deeper than {DEPTH_MAX}; write it flatter")
        if scanner.take_keyword("NOT") or scanner.take("-"):
            return Not(self._term(depth + 1))
        opened = scanner.position
        if not scanner.take("("):
            return self._comparison()
        inner = self.expression(depth + 1)
        if not scanner.take(")"):
            raise refusal(opened, "this parenthesis is never closed")
        return inner

    def _comparison(self) -> Node:
        scanner = self.scanner
        self._terms += 1
        if self._terms > TERMS_MAX:
            raise refusal(scanner.position, f"more than {TERMS_MAX} comparisons; ask in parts")
        if scanner.is_at_end or scanner.peek_keyword():
            found = scanner.rest if not scanner.is_at_end else "the end"
            raise refusal(scanner.position, f"a comparison is missing before {found}")
        path = scanner.path()
        operator = scanner.operator()
        if not operator:
            written = shown(".".join(path.parts))
            raise refusal(
                path.position, f"{written} stands alone; write `field = value` (words alone are not searched)"
            )
        return Comparison(path, operator, scanner.literal())
