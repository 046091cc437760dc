"""The tests, and what must be decided before any of them imports torch."""

import os

# Side by side on few cores, threads that wait in a loop take the time of those that work.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
