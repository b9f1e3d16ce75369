"""What holdfast.store.interface says of etcd, shown by a real one: the interface must fit an engine over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.etcd_api import EVENT_DELETE, Etcd
from support.etcd_server import etcd_server

OPERATIONS_MAX = 128
REQUEST_BYTES_MAX = 3 << 19


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as address, grpc.insecure_channel(address) as channel:
        yield Etcd(channel)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Keys of the test's own: all tests share one etcd."""
    return f"{request.node.name}/"


def revision(etcd: Etcd) -> int:
    return int(etcd.range("nothing-is-here/").header.revision)


def keys(prefix: str, count: int, value: bytes = b"v") -> dict[str, bytes]:
    return {f"{prefix}{number:04}": value for number in range(count)}


def test_a_transaction_takes_128_operations_and_not_129(etcd: Etcd, prefix: str) -> None:
    """Of each kind: 128 comparisons and 128 puts together are taken. A larger one of ours must be staged."""
    absent = dict.fromkeys(keys(prefix, OPERATIONS_MAX), 0)
    assert etcd.txn(keys(prefix, OPERATIONS_MAX), expected=absent).succeeded
    for call in (
        lambda: etcd.txn(keys(prefix, OPERATIONS_MAX + 1)),
        lambda: etcd.txn(expected=dict.fromkeys(keys(prefix, OPERATIONS_MAX + 1), 0)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT
        assert "too many operations" in str(refused.value)


def test_a_request_of_more_than_one_and_a_half_mebibytes_is_refused(etcd: Etcd, prefix: str) -> None:
    etcd.txn({f"{prefix}fits": b"x" * (REQUEST_BYTES_MAX - 4096)})
    with pytest.raises(grpc.RpcError) as refused:
        etcd.txn({f"{prefix}large": b"x" * REQUEST_BYTES_MAX})
    assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert "too large" in str(refused.value)


def test_one_transaction_is_one_revision_which_all_its_keys_share(etcd: Etcd, prefix: str) -> None:
    """S1 holds of etcd's own revisions, and KeyValue.mod_revision is what compares need."""
    before = revision(etcd)
    answer = etcd.txn(keys(prefix, 5))
    assert answer.header.revision == before + 1 == revision(etcd)
    assert {found.mod_revision for found in etcd.range(prefix).kvs} == {before + 1}
    assert {found.lease for found in etcd.range(prefix).kvs} == {0}, "keys live without a lease of etcd's"


def test_what_changes_nothing_makes_no_revision(etcd: Etcd, prefix: str) -> None:
    """A comparison that fails, the deletion of a missing key, no operation at all: `commit` promises the same."""
    before = etcd.txn({f"{prefix}k": b"v"}).header.revision
    failed = etcd.txn({f"{prefix}k": b"w"}, expected={f"{prefix}k": before + 7})
    assert (failed.succeeded, failed.header.revision) == (False, before)
    assert etcd.txn(deletes=(f"{prefix}never-was",)).header.revision == before
    assert etcd.txn().header.revision == before
    assert etcd.txn({f"{prefix}k": b"w"}, expected={f"{prefix}k": before}).succeeded
    assert revision(etcd) == before + 1


def test_putting_the_same_value_again_is_a_change(etcd: Etcd, prefix: str) -> None:
    first = etcd.txn({f"{prefix}k": b"v"}).header.revision
    assert etcd.txn({f"{prefix}k": b"v"}).header.revision == first + 1


def test_putting_and_deleting_one_key_in_one_transaction_is_refused(etcd: Etcd, prefix: str) -> None:
    """As `Txn.check` refuses it; for one key put twice the same."""
    with pytest.raises(grpc.RpcError) as refused:
        etcd.txn({f"{prefix}k": b"v"}, deletes=(f"{prefix}k",))
    assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert "duplicate key" in str(refused.value)


def test_staging_is_seen_as_revisions_of_its_own(etcd: Etcd, prefix: str) -> None:
    """Puts elsewhere raise the revision and are not in a watch of the records: numbers are missing there.

    An engine must watch its staging area, too, to pass those revisions on as changes without content.
    """
    first = etcd.txn({f"{prefix}record/a": b"1"}).header.revision
    staged = etcd.txn({f"{prefix}staged/b": b"2"}).header.revision
    flipped = etcd.txn({f"{prefix}record/b": b"2"}, deletes=(f"{prefix}staged/b",)).header.revision
    with etcd.watch(f"{prefix}record/", first) as answers:
        assert revisions_until(answers, flipped) == [first, flipped]
    with etcd.watch(prefix, first) as answers:
        assert revisions_until(answers, flipped) == [first, staged, flipped]


def test_a_range_shows_the_past_until_it_is_compacted(etcd: Etcd, prefix: str) -> None:
    first = etcd.txn({f"{prefix}k": b"old"}).header.revision
    second = etcd.txn({f"{prefix}k": b"new"}).header.revision
    assert [found.value for found in etcd.range(prefix, first).kvs] == [b"old"]
    etcd.compact(second)
    assert [found.value for found in etcd.range(prefix, second).kvs] == [b"new"], (
        "the compacted revision is still there"
    )
    with pytest.raises(grpc.RpcError) as refused:
        etcd.range(prefix, first)
    assert code(refused) is grpc.StatusCode.OUT_OF_RANGE
    with pytest.raises(grpc.RpcError) as refused:
        etcd.range(prefix, second + 1000)
    assert code(refused) is grpc.StatusCode.OUT_OF_RANGE


def test_a_watch_of_compacted_history_is_cancelled_with_the_revision_compacted_to(etcd: Etcd, prefix: str) -> None:
    """REVISION_COMPACTED with its `compact_revision`. What is left begins after it here, and with it in etcd."""
    first = etcd.txn({f"{prefix}k": b"1"}).header.revision
    etcd.txn({f"{prefix}k": b"2"})
    last = etcd.txn({f"{prefix}k": b"3"}).header.revision
    etcd.compact(last)
    with etcd.watch(prefix, first) as answers:
        ended = next(answer for answer in answers if answer.canceled)
    assert ended.compact_revision == last
    with etcd.watch(prefix, last) as answers:
        assert revisions_until(answers, last) == [last]


@pytest.mark.parametrize("fragment", [True, False])
def test_a_large_revision_is_split_where_fragments_are_asked_for(etcd: Etcd, prefix: str, fragment: bool) -> None:
    """All parts but the last say so, and the engine must put them together (W4); unasked, etcd sends it whole."""
    old, new = keys(prefix, 12, b"o" * 100_000), keys(prefix, 12, b"n" * 100_000)
    etcd.txn(old)
    at = etcd.txn(new).header.revision
    with etcd.watch(prefix, at, prev_kv=True, fragment=fragment) as answers:
        assert next(answers).created
        parts = [next(answers)]
        while parts[-1].fragment:
            parts.append(next(answers))
    assert (len(parts) > 1) == fragment
    assert [part.fragment for part in parts] == [*[True] * (len(parts) - 1), False]
    events = [event for part in parts for event in part.events]
    assert {event.kv.mod_revision for event in events} == {at}
    assert sorted(event.kv.key.decode() for event in events) == sorted(new)


def test_a_watch_tells_deletions_by_key_and_revision(etcd: Etcd, prefix: str) -> None:
    etcd.txn(keys(prefix, 2))
    gone = etcd.txn(deletes=tuple(keys(prefix, 2))).header.revision
    with etcd.watch(prefix, gone) as answers:
        events = next(answer for answer in answers if answer.events).events
    assert [(event.type, event.kv.mod_revision) for event in events] == [(EVENT_DELETE, gone)] * 2


def test_revisions_go_on_where_they_were_after_a_restart(tmp_path: Path) -> None:
    """They begin at 1 in an empty etcd, and at 0 here: an engine takes one off."""
    with etcd_server(tmp_path) as address, grpc.insecure_channel(address) as channel:
        assert revision(Etcd(channel)) == 1
        before = [Etcd(channel).txn({f"k{number}": b"v"}).header.revision for number in range(3)][-1]
        assert before == 4
    with etcd_server(tmp_path) as address, grpc.insecure_channel(address) as channel:
        assert revision(Etcd(channel)) == before
        assert [found.mod_revision for found in Etcd(channel).range("k").kvs] == [before - 2, before - 1, before]
        assert Etcd(channel).txn({"k": b"v"}).header.revision == before + 1


def code(refused: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    error: Any = refused.value
    found: grpc.StatusCode = error.code()
    return found


def revisions_until(answers: Iterator[Any], last: int) -> list[int]:
    """The revisions a watch tells of, up to one."""
    found: list[int] = []
    for answer in answers:
        found += sorted({event.kv.mod_revision for event in answer.events} - set(found))
        if found and found[-1] >= last:
            return found
    raise AssertionError(f"the watch ended before revision {last}: {found}")
