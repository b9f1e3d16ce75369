"""The user's signal ends what may be ended, once, and never what must not be left half done."""

import os
import signal

import pytest

from holdfast_chaos.interrupts import ended_by_the_user

pytestmark = pytest.mark.serial  # signals reach the process, and handlers are the process's


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_the_first_signal_ends_what_is_interruptible_and_later_ones_only_wait() -> None:
    with ended_by_the_user() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
            send()
        send()
        send(signal.SIGINT)


def test_a_signal_during_start_up_waits_until_the_run_can_be_ended() -> None:
    with ended_by_the_user() as interrupts:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
            pytest.fail("the run went on")


def test_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_the_user():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
