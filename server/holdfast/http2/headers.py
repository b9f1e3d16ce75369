"""From the fragments of header blocks to fields: RFC 9113 §4.3, within bounds (§10.5.1)."""

from hpack import Decoder, HPACKError, OversizedHeaderListError

from holdfast.http2.errors import ConnectionFailedError, ErrorCode
from holdfast.http2.fields import Fields
from holdfast.http2.limits import Limits
from holdfast.http2.settings import TABLE_BYTES_DEFAULT


class BlockAssembler:
    """Joins the fragments of one header block: a HEADERS or PUSH_PROMISE frame and its CONTINUATION frames.

    Attributes:
        stream_id: The stream whose block is not complete: no other frame may come before it is. 0 if there is none.
        ends: Whether that block's HEADERS frame ends its stream.
    """

    __slots__ = ("_block", "_frames_left", "_limits", "ends", "stream_id")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._block = bytearray()
        self._frames_left = 0
        self.stream_id = 0
        self.ends = False

    def begin(self, stream_id: int, fragment: bytes, *, ends: bool) -> None:
        """Takes the first fragment of a block that goes on. Raises ConnectionFailedError beyond the bound."""
        self.stream_id = stream_id
        self.ends = ends
        self._frames_left = self._limits.continuation_frames_max
        self._block += fragment
        self._check()

    def go_on(self, fragment: bytes, *, is_last: bool) -> bytes | None:
        """Takes another fragment. Returns the block once it is whole. Raises ConnectionFailedError beyond a bound."""
        self._block += fragment
        self._frames_left -= 1
        self._check()
        if not is_last:
            return None
        block = bytes(self._block)
        self._block.clear()
        self.stream_id = 0
        return block

    def _check(self) -> None:
        if self._frames_left < 0:
            raise ConnectionFailedError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"more than {self._limits.continuation_frames_max} CONTINUATION frames in a block of stream "
                f"{self.stream_id}",
            )
        check_block_size(self._block, self._limits)


class HeaderDecoder:
    """Decodes the header blocks of one direction of a connection, in the order they came.

    A block can depend on all before it, so every block has to be decoded, or none after it. Where the table is empty
    and bound to stay so, what a block says depends on its bytes alone, and is kept by them.

    Args:
        limits: Bounds on a list and on what is kept.
        table_bytes_max: Size of the table that the sender may use.

    Attributes:
        kept: The fields of blocks that are kept by their bytes, the same object for as long as it is; to look into
            before `decode`, not to change.
    """

    __slots__ = ("_decoder", "_limits", "kept")

    def __init__(self, limits: Limits, table_bytes_max: int = TABLE_BYTES_DEFAULT) -> None:
        self._limits = limits
        self._decoder = Decoder(max_header_list_size=limits.header_list_bytes_max)
        self._decoder.max_allowed_table_size = table_bytes_max
        self.kept: dict[bytes, Fields] = {}

    def allow_table(self, table_bytes_max: int) -> None:
        """Binds the sender, who has acknowledged it, to a size of table. One that was never used needs no notice."""
        decoder = self._decoder
        decoder.max_allowed_table_size = table_bytes_max
        if decoder.header_table_size > table_bytes_max and not decoder.header_table.dynamic_entries:
            decoder.header_table_size = table_bytes_max
        if table_bytes_max:
            self.kept.clear()

    def decode(self, block: bytes) -> Fields:
        """The fields of a block.

        Raises:
            ConnectionFailedError: COMPRESSION_ERROR for what is no block, ENHANCE_YOUR_CALM for too large a list.
        """
        kept = self.kept.get(block)
        if kept is not None:
            return kept
        check_block_size(block, self._limits)
        decoder = self._decoder
        try:
            fields = Fields((bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFailedError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a header list of more than {self._limits.header_list_bytes_max} bytes",
            ) from error
        except HPACKError as error:
            raise ConnectionFailedError(ErrorCode.COMPRESSION_ERROR, f"a header block is wrong: {error}") from error
        if decoder.max_allowed_table_size == 0 and len(block) <= self._limits.cached_block_bytes_max:
            if len(self.kept) >= self._limits.cached_blocks_max:
                self.kept.clear()
            self.kept[block] = fields
        return fields


def check_block_size(block: bytes | bytearray, limits: Limits) -> None:
    """Refuses a block that is longer than the list it may hold. Raises ConnectionFailedError."""
    if len(block) > limits.header_list_bytes_max:
        raise ConnectionFailedError(
            ErrorCode.ENHANCE_YOUR_CALM,
            f"a header block of {len(block)} bytes or more; {limits.header_list_bytes_max} are taken",
        )
