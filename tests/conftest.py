"""Environment of all tests: no network, one thread, W&B offline, short garbage collections."""

import gc
import os
import signal

# With two test workers on two cores, further threads would only compete for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
# set by pytest-xdist: tables would fit a terminal that is not there
os.environ.pop("COLUMNS", None)
# in the background of a shell, Ctrl-C is ignored, also by the runs that tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave imported modules and collected tests out of garbage collections: a tenth faster."""
    gc.collect()
    gc.freeze()
