"""Pages of lists: tokens that say where to go on, and refuse to be used for another query."""

import base64
import binascii
import hashlib

from holdfast.errors import invalid_field

PAGE_SIZE_DEFAULT = 100

_BINDING_BYTES = 8


def encode(query: str, last: str) -> str:
    """The token of the page after the one that ended with `last`, for this query."""
    return base64.urlsafe_b64encode(_binding(query) + last.encode()).decode()


def decode(query: str, token: str) -> str:
    """The last name of the page before; empty for the first page.

    Raises:
        HoldfastError: INVALID_FIELD for a token that is damaged or of another query.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        binding, last = raw[:_BINDING_BYTES], raw[_BINDING_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise invalid_field(
            "page_token", f"{token[:50]!r} is no token of this service; start with an empty one"
        ) from None
    if binding != _binding(query):
        raise invalid_field(
            "page_token", "belongs to another query; keep everything but page_token and page_size the same"
        )
    return last


def _binding(query: str) -> bytes:
    return hashlib.sha256(query.encode()).digest()[:_BINDING_BYTES]
