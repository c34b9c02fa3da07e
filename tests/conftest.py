"""Settings for the whole suite."""

import os

# One thread: the bundled model is so small that a thread pool costs more than it saves, and float32 sums then
# come in one order on every machine. Set before any test module imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
