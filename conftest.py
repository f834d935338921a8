"""Settings for every test, the notebooks' included."""

import os

import matplotlib
import pytest
from nbval.kernel import RunningKernel

pytest.register_assert_rewrite("routes")  # its assertions, too, show what they compared

# Two threads on two busy cores can be several times slower than one. Set before any
# kernel starts or torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No windows here, but the notebooks' kernels must choose their own backend.
os.environ.pop("MPLBACKEND", None)
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
