"""Filters for lists and watches: a documented subset of AIP-160 (https://google.aip.dev/160).

    tier = AGENT_TIER_1_CORE OR tier = 2_SPECIALIST       OR binds tighter than AND, as AIP-160 has it
    labels.team = "core" capabilities:"code-review"       side by side means AND
    NOT status = IDLE   -labels:gpu   (a = 1 OR b = 2)    NOT or `-` before a term or parentheses

A term is `field operator value`; words alone are refused, since a search over everything surprises more than it helps.

=============  ===========================  ==========================================================================
Field          Operators                    Value
=============  ===========================  ==========================================================================
string         ``= != < <= > >= :``         a word or quoted text; ``*`` at either end of it matches anything (``=``,
                                            ``!=``); ``\\*`` is a star; ``:`` finds it anywhere; order is by code point
number         ``= != < <= > >= :``         ``42``, ``-1``; ``:`` is ``=``
bool           ``= != :``                   ``true``, ``false``
enum           ``= != :``                   the value's name, in full or without the enum's prefix
Timestamp      ``= != < <= > >= :``         RFC 3339: ``2026-01-31T08:00:00Z``
Duration       ``= != < <= > >= :``         seconds: ``30s``, ``0.5s``
map            ``labels:key``               has the key; ``labels.key`` is the key's value (the rest of the path is the
                                            key, dots and slashes included; quote what else it holds)
repeated       ``capabilities:"x"``         has the element; of messages, one whose ``id`` it is. ``capabilities.id``
                                            compares each: one is enough, but ``!=`` wants that none is equal
any            ``field:*``                  is set: not empty, not zero
=============  ===========================  ==========================================================================

A comparison with what is not there (an unset message, a key the map lacks) is false, `!=` too; `NOT labels.team = x`
also finds those without the label. Names and values are case-sensitive.
"""

from holdfast.filtering.compiler import Filter, compile_filter

__all__ = ["Filter", "compile_filter"]
