"""Adam, which turns gradients into steps of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attncore.base.arrays import dtype_name, is_float, shape_of
from attncore.base.settings import check_positive


class Adam:
    r"""Steps of about one size for each parameter, however large its gradient is.

    .. math:: m \leftarrow 0.9\, m + 0.1\, g, \qquad s \leftarrow 0.999\, s + 0.001\, g^2, \qquad
        w \leftarrow w - \text{rate}\, \frac{m / (1 - 0.9^t)}{\sqrt{s / (1 - 0.999^t)} + 10^{-8}}

    What ``torch.optim.Adam`` does, with its usual settings.

    Parameters
    ----------
    parameters
        By name, such as ``layer.state_dict()``: NumPy arrays, which each step changes in place.
    rate
        The learning rate.

    Raises
    ------
    ValueError
        If `rate` is not positive and finite; or a step is given too few gradients, or one that
        has not the shape of its parameter. Nothing is changed then.
    TypeError
        If a parameter is no NumPy array of floats.

    References
    ----------
    Kingma & Ba (2015), algorithm 1.

    Examples
    --------
    >>> w = {"w": np.array([3.0])}
    >>> adam = Adam(w, rate=0.1)
    >>> for _ in range(200):
    ...     adam.step({"w": 2 * w["w"]})                           # of the loss w**2
    >>> bool(abs(w["w"][0]) < 0.01)
    True
    """

    def __init__(self, parameters: Mapping[str, np.ndarray], rate: float) -> None:
        for name, w in parameters.items():
            if type(w) is not np.ndarray or not is_float(w):
                kind = dtype_name(w) if type(w) is np.ndarray else type(w).__name__
                raise TypeError(
                    f"{name} must be a NumPy array of floats, got {kind}: "
                    "give state_dict() of a model of attncore.models"
                )
        self.parameters, self.rate, self.steps = parameters, check_positive("rate", rate), 0
        self.mean = {name: np.zeros_like(w) for name, w in parameters.items()}
        self.square = {name: np.zeros_like(w) for name, w in parameters.items()}

    def step(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Change each parameter, given its gradient by its name; other names are passed over."""
        if missing := sorted(self.parameters.keys() - gradients.keys()):
            raise ValueError(f"gradients lack {', '.join(missing)}: give one for each parameter")
        for name, w in self.parameters.items():
            if shape_of(gradients[name]) != w.shape:
                raise ValueError(
                    f"the gradient of {name} must be {w.shape}, as {name} is, "
                    f"got {shape_of(gradients[name])}"
                )
        self.steps += 1
        for name, w in self.parameters.items():
            m, s, g = self.mean[name], self.square[name], gradients[name]
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            spread = np.sqrt(s / (1 - 0.999**self.steps)) + 1e-8
            w -= self.rate / (1 - 0.9**self.steps) * m / spread
