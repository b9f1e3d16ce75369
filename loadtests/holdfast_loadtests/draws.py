"""Seeded values for holes of requests: `{{uuid}}`, `{{int(1, 6)}}`, `{{pick(red, green)}}` and their like.

A value depends on the seed, the scenario's number, the step and how many were drawn before it in that step, never on
when the call is made: one seed gives the same requests however late the answers come.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from math import log
from statistics import NormalDist
from typing import Final

from holdfast_loadtests.hints import nearest

TEXT_CHARS_MAX: Final = 4 * 1024 * 1024
"""Longest `{{text(n)}}`: as much as gRPC servers take in one message unless told otherwise."""

ZIPF_MAX: Final = 1_000_000
"""Most ranks of `{{zipf(n, s)}}`: their cumulated weights are kept in memory."""

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz012345"


class Draws:
    """The stream of random values of one step of one scenario.

    Two runs with one seed against one lasting server therefore send the same request ids: give them different seeds.
    """

    __slots__ = ("_count", "_key")

    def __init__(self, seed: int, ordinal: int, step: int) -> None:
        self._key = f"{seed}:{ordinal}:{step}:"
        self._count = 0

    def uuid(self) -> str:
        """A uuid, version 4 in form."""
        text = self._bytes(16).hex()
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    def uniform(self) -> float:
        """From 0 to just below 1, in steps of 2^-53."""
        return (int.from_bytes(self._bytes(8), "big") >> 11) * 2.0**-53

    def letters(self, count: int) -> str:
        """So many of 32 letters and digits."""
        found = bytearray()
        while len(found) < count:
            found += self._bytes(64)
        return "".join([_LETTERS[byte & 31] for byte in found[:count]])

    def _bytes(self, size: int) -> bytes:
        digest = blake2b(f"{self._key}{self._count}".encode(), digest_size=size).digest()
        self._count += 1
        return digest


Draw = Callable[[Draws], object]
"""Draws one value."""


class DrawError(ValueError):
    """A hole asks for a value that cannot be drawn; the text says why and what can."""


@dataclass(frozen=True)
class Kind:
    """A function that a hole may call."""

    usage: str
    about: str
    make: Callable[[Sequence[str]], Draw]


def compile_draw(name: str, arguments: str) -> Draw:
    """What `name(arguments)` draws.

    Raises:
        DrawError: there is no such function, or its arguments do not fit.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise DrawError(f"there is no function {name!r}; {nearest(name, KINDS)}")
    parts = [part.strip() for part in arguments.split(",")] if arguments.strip() else []
    try:
        return kind.make(parts)
    except (ValueError, OverflowError) as error:
        raise DrawError(f"{name}({arguments}): {error}; expected {kind.usage}, {kind.about}") from error


def _numbers(parts: Sequence[str], count: int) -> list[float]:
    if len(parts) != count:
        raise ValueError(f"{len(parts)} arguments")
    found = [float(part) for part in parts]
    if not all(abs(value) < 1e300 for value in found):
        raise ValueError("numbers must be finite")
    return found


def _int(parts: Sequence[str]) -> Draw:
    if len(parts) != 2:
        raise ValueError(f"{len(parts)} arguments")
    lowest, highest = int(parts[0]), int(parts[1])
    if lowest > highest:
        raise ValueError(f"{lowest} is above {highest}")
    if lowest < -(1 << 63) or highest >= 1 << 64:
        raise ValueError("numbers must fit 64 bits, as those of messages do")
    span = highest - lowest + 1
    return lambda draws: lowest + int(draws.uniform() * span)


def _float(parts: Sequence[str]) -> Draw:
    lowest, highest = _numbers(parts, 2)
    if lowest > highest:
        raise ValueError(f"{lowest} is above {highest}")
    return lambda draws: lowest + draws.uniform() * (highest - lowest)


def _normal(parts: Sequence[str]) -> Draw:
    mean, deviation = _numbers(parts, 2)
    if deviation <= 0:
        raise ValueError(f"a deviation of {deviation}")
    distribution = NormalDist(mean, deviation)
    return lambda draws: distribution.inv_cdf(max(draws.uniform(), 2.0**-53))


def _exponential(parts: Sequence[str]) -> Draw:
    [mean] = _numbers(parts, 1)
    if mean <= 0:
        raise ValueError(f"a mean of {mean}")
    return lambda draws: -mean * log(1.0 - draws.uniform())


def _zipf(parts: Sequence[str]) -> Draw:
    count, exponent = _numbers(parts, 2)
    if not 1 <= count <= ZIPF_MAX or count != int(count) or exponent <= 0:
        raise ValueError(f"{parts[0]} ranks with the exponent {parts[1]} (at most {ZIPF_MAX} ranks)")
    heights = list(accumulate(rank**-exponent for rank in range(1, int(count) + 1)))
    return lambda draws: 1 + bisect_left(heights, draws.uniform() * heights[-1])


def _pick(parts: Sequence[str]) -> Draw:
    if not parts:
        raise ValueError("nothing to pick from")
    words = list(parts)
    return lambda draws: words[int(draws.uniform() * len(words))]


def _text(parts: Sequence[str]) -> Draw:
    if len(parts) != 1 or not 0 <= int(parts[0]) <= TEXT_CHARS_MAX:
        raise ValueError(f"not one number from 0 to {TEXT_CHARS_MAX}")
    count = int(parts[0])
    return lambda draws: draws.letters(count)


KINDS: Final = {
    "int": Kind("int(1, 6)", "a whole number from the first to the second", _int),
    "float": Kind("float(0, 1)", "a number from the first to below the second", _float),
    "normal": Kind("normal(50, 10)", "normally distributed, by mean and standard deviation", _normal),
    "exponential": Kind("exponential(20)", "exponentially distributed, by its mean", _exponential),
    "zipf": Kind("zipf(1000, 1.1)", "a rank from 1 to the first, the n-th as frequent as n to minus the second", _zipf),
    "pick": Kind("pick(red, green)", "one of the words, equally often", _pick),
    "text": Kind("text(20)", "so many letters and digits", _text),
}
"""Functions of holes."""
