"""Signals during training."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from unipeft_run.errors import Interrupted
from unipeft_run.training.interrupts import Interrupts


def test_a_signal_that_the_process_ignores_stays_ignored() -> None:
    """A shell script starts `command &` with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as given:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            given.check(torch.device("cpu"))
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted, match="SIGTERM"):
                given.check(torch.device("cpu"))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
