"""A lease is relied on no longer than the server surely keeps it."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.proof import Proof

SECONDS = st.floats(0.0, 1e6, allow_nan=False)


@given(
    ttl_s=st.floats(1.0, 1000.0),
    share=st.floats(0.01, 0.9),
    beats=st.lists(st.tuples(st.floats(0, 500), st.floats(0, 2000), st.booleans())),
    after_s=st.floats(0, 3000),
)
def test_it_is_never_proven_a_ttl_after_the_last_acknowledged_keepalive_was_sent(
    ttl_s: float, share: float, beats: list[tuple[float, float, bool]], after_s: float
) -> None:
    """Whatever is sent when, answered or not, and however late."""
    now_s = acknowledged_s = 0.0
    proof = Proof(ttl_s, ttl_s * share, now_s)
    was_lost = False
    for pause_s, flight_s, is_answered in beats:
        sent_s = now_s + pause_s
        now_s = sent_s + flight_s
        if is_answered:
            proof.kept(sent_s, now_s)
            acknowledged_s = sent_s
        is_proven = proof.is_proven(now_s)
        assert not is_proven or now_s < acknowledged_s + ttl_s * (1 - share) + 1e-6
        assert not (was_lost and is_proven), "lost is for good"
        was_lost = not is_proven
    assert not proof.is_proven(now_s + after_s) or after_s < ttl_s


def test_it_is_proven_until_its_margin_and_says_what_was_missing() -> None:
    proof = Proof(ttl_s=10.0, margin_s=1.0, sent_s=100.0)
    assert proof.is_proven(108.999)
    assert not proof.is_proven(109.0)
    assert "no keepalive sent in the last 9 s was answered" in proof.why_lost


def test_an_answer_that_comes_too_late_brings_nothing_back() -> None:
    """The work was told to stop; another session may have begun."""
    proof = Proof(ttl_s=10.0, margin_s=1.0, sent_s=100.0)
    proof.kept(sent_s=108.0, now_s=109.5)
    assert not proof.is_proven(109.5)


def test_answers_out_of_order_do_not_shorten_it() -> None:
    proof = Proof(ttl_s=10.0, margin_s=1.0, sent_s=100.0)
    proof.kept(sent_s=105.0, now_s=106.0)
    proof.kept(sent_s=103.0, now_s=106.0)
    assert proof.is_proven(113.9)


def test_the_first_reason_is_the_one_told() -> None:
    proof = Proof(ttl_s=10.0, margin_s=1.0, sent_s=100.0)
    proof.lose("LEASE_NOT_FOUND: it was revoked")
    assert not proof.is_proven(100.0)
    proof.lose("another")
    assert proof.why_lost == "LEASE_NOT_FOUND: it was revoked"
