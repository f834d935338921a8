"""Settings for every test, the notebooks' included."""

import os
from pathlib import Path

import pytest
from nbval.kernel import RunningKernel

pytest.register_assert_rewrite("routes")  # its assertions, too, show what they compared

# Two threads on two busy cores can be several times slower than one. Set before any
# kernel starts or torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Not the reader's own settings, but those the book was built with.
for name in ("IPYTHONDIR", "MPLCONFIGDIR"):
    os.environ[name] = str(Path(__file__).parent / "_build" / name.lower())
# No windows here, but the notebooks' kernels must choose their own backend.
os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402 (it reads its settings when it is imported)

matplotlib.use("agg")


def execute_cell_input(self, cell_input, allow_stdin=None):
    """Run a cell as Jupyter does.

    nbval leaves `store_history` off, and IPython then prints the value of a last line that
    ends in a semicolon: a cell that is quiet everywhere else would fail.
    """
    return self.kc.execute(
        cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
    )


RunningKernel.execute_cell_input = execute_cell_input
