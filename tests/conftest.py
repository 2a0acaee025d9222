"""What the tests share: no network, one thread, tiny random models."""

import os

# Two workers on two cores: a second thread each would wait for a core at every operation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
