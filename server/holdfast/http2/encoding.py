"""Header blocks of literals and the static table alone: RFC 7541.

They mean the same on every connection, at any time, so one can be encoded once and sent with any number of calls.
Blocks may be joined: a constant one, and what varies.
"""

from collections.abc import Collection, Iterable

from hpack.table import HeaderTable

EMPTIES_TABLE = b"\x20"
"""Sets the size of the table to 0 (RFC 7541 §6.3). It stands before the first block of a connection; with no table, no
later setting of the peer has to be answered with a size."""

_WHOLE: dict[tuple[bytes, bytes], bytes] = {}
_NAMES: dict[bytes, int] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, start=1):
    _WHOLE.setdefault((_name, _value), bytes((0x80 | _index,)))
    _NAMES.setdefault(_name, _index)


def encode(fields: Iterable[tuple[bytes, bytes]], secret: Collection[bytes] = (b"authorization",)) -> bytes:
    """A block of some fields, in their order.

    Args:
        fields: Names in lower case, and values. What a peer would call malformed is sent as it is: `Fields(…).problem`
            tells before.
        secret: Names whose values no proxy may put into a table (RFC 7541 §7.1.3).
    """
    made = bytearray()
    for name, value in fields:
        whole = _WHOLE.get((name, value)) if value else None
        if whole is not None:
            made += whole
            continue
        _put_number(made, _NAMES.get(name, 0), 4, 0x10 if name in secret else 0x00)
        if name not in _NAMES:
            _put_number(made, len(name), 7, 0)
            made += name
        _put_number(made, len(value), 7, 0)
        made += value
    return bytes(made)


def _put_number(made: bytearray, number: int, bits: int, first: int) -> None:
    """RFC 7541 §5.1."""
    most = (1 << bits) - 1
    if number < most:
        made.append(first | number)
        return
    made.append(first | most)
    number -= most
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
