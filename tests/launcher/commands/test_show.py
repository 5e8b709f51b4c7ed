import os
import signal

import pytest

from ftl.commands.show import _noticing_ctrl_c


class _Finaliser:
    """Takes Ctrl-C in the one place where Python drops what it raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(10))  # the handler runs between two instructions


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_python_dropped_ends_the_next_sleep() -> None:
    with pytest.raises(KeyboardInterrupt), _noticing_ctrl_c() as sleep:
        sleep(0)
        _Finaliser()
        sleep(0)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_ctrl_c_that_the_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _noticing_ctrl_c() as sleep:
            os.kill(os.getpid(), signal.SIGINT)
            sleep(0)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
