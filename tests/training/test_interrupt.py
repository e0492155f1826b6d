import os
import signal
import threading

import pytest

from voxlift.training.interrupt import STOP_SIGNALS, StopRun, interruptible


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_asks_and_second_stops(caplog: pytest.LogCaptureFixture) -> None:
    with interruptible() as interrupt:
        seen = [interrupt.requested]
        press_ctrl_c()
        assert [*seen, interrupt.requested] == [False, True]
        assert "Ctrl-C again, stops at once" in caplog.text
        with pytest.raises(StopRun):
            press_ctrl_c()


def test_ctrl_c_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def fail() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))
            raise RuntimeError("training failed")

    with pytest.raises(RuntimeError, match="training failed"):
        fail()
    assert seen != [before]
    assert signal.getsignal(signal.SIGINT) == before


def test_worker_processes_leave_it_to_the_run() -> None:
    with interruptible() as interrupt:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            press_ctrl_c()
            press_ctrl_c()
            os._exit(0 if not interrupt.requested else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_other_threads_leave_ctrl_c_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interruptible() as interrupt:
            seen.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_all_signals_that_stop_are_handled_alike(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interrupt:
        signal.raise_signal(number)
        assert interrupt.signal == number
    assert signal.getsignal(number) == before
    assert len(STOP_SIGNALS) == 4
