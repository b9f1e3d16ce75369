"""Hints for names that lead nowhere."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHOWN_MAX: Final = 12


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question with the nearest of the known names, or a list of them."""
    names = sorted(known)
    by_folded = {_folded(one): one for one in names}
    near = get_close_matches(_folded(name), by_folded, n=1)
    if near:
        return f"{prefix}did you mean {by_folded[near[0]]!r}?"
    shown = ", ".join(names[:_SHOWN_MAX]) or "none"
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN_MAX else ""
    return f"{prefix}there are: {shown}{more}"


def _folded(name: str) -> str:
    """Without case and separators: NOT_FOUND is near NotFound."""
    return name.replace("_", "").replace("-", "").lower()
