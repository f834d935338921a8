"""Knobs of a cell: sliders, choices and ticks, declared by comments as Colab's forms are.

To Python the lines are plain assignments::

    h = 2.0  #@param {type:"slider", min:0.5, max:10, step:0.5}
    heads = 2  #@param [1, 2, 4] {type:"raw"}
    causal = True  #@param {type:"boolean"}

In JupyterLab and VS Code ``%load_ext attncore.knobs`` shows them below every cell that is run and
has some; turning one runs the cell again with the new value. It needs ipywidgets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

LINE = re.compile(r"^(?P<name>\w+) = (?P<value>.+?) +#@param (?P<form>.+)$", re.M)


class Knob(NamedTuple):
    """One knob: its name, its kind, its value and all that it can be set to, as Python text."""

    name: str
    kind: str
    value: str
    values: tuple[str, ...]


def find(code: str) -> list[Knob]:
    """Return the knobs that a cell declares, from top to bottom.

    Parameters
    ----------
    code
        The cell.

    Returns
    -------
    list of Knob
        The `kind` is "slider", "choice" or "tick".

    Raises
    ------
    ValueError
        If a line says ``#@param`` and cannot be a knob: a slider lacks a number or its values
        need more decimals than its own has, or the own value is not among the values.

    References
    ----------
    Google Colab, *Forms*.

    Examples
    --------
    >>> find('h = 1.0  #@param {type:"slider", min:0.5, max:1.5, step:0.5}')
    [Knob(name='h', kind='slider', value='1.0', values=('0.5', '1.0', '1.5'))]
    """
    return [_knob(**line.groupdict()) for line in LINE.finditer(code)]


def turned(code: str, setting: Mapping[str, str]) -> str:
    """Return a cell with other values, all else as it is.

    Parameters
    ----------
    code
        The cell.
    setting
        The new value of each knob that is turned, as Python text, by its name.

    Returns
    -------
    str
        The cell with these values.

    Raises
    ------
    ValueError
        If the cell has no knob of such a name.

    References
    ----------
    Google Colab, *Forms*.

    Examples
    --------
    >>> turned('h = 1.0  #@param {type:"slider", min:0.5, max:1.5, step:0.5}', {"h": "0.5"})
    'h = 0.5  #@param {type:"slider", min:0.5, max:1.5, step:0.5}'
    """
    names = [line["name"] for line in LINE.finditer(code)]
    if strangers := setting.keys() - set(names):
        raise ValueError(f"setting names {', '.join(sorted(strangers))}; the knobs are {names}")

    def put(line: re.Match[str]) -> str:
        start, end = (at - line.start() for at in line.span("value"))
        return line[0][:start] + setting.get(line["name"], line["value"]) + line[0][end:]

    return LINE.sub(put, code)


def _knob(name: str, value: str, form: str) -> Knob:
    kind, values = _kind(name, value, form)
    if value not in values:
        raise ValueError(f"the {kind} {name} is {value}, which is none of {', '.join(values)}")
    return Knob(name, kind, value, values)


def _kind(name: str, value: str, form: str) -> tuple[str, tuple[str, ...]]:
    if re.search(r'type: *"slider"', form):
        return "slider", _steps(name, value, form)
    if re.search(r'type: *"boolean"', form):
        return "tick", ("False", "True")
    if choices := re.match(r"\[(.+?)\]", form):
        return "choice", tuple(re.split(r", *", choices[1]))
    raise ValueError(f"the knob {name} must be a slider, a boolean or a [list], got {form}")


def _steps(name: str, value: str, form: str) -> tuple[str, ...]:
    """Return what a slider can be set to, written with the decimals of its own value."""
    found = {key: re.search(rf"\b{key}: *(-?\d*\.?\d+)", form) for key in ("min", "max", "step")}
    if missing := [key for key, number in found.items() if number is None]:
        raise ValueError(f"the slider {name} lacks {' and '.join(missing)}: {form}")
    low, high, step = (Decimal(number[1]) for number in found.values() if number)
    if step <= 0 or high < low:
        raise ValueError(f"the slider {name} must go up from min to max by step, got {form}")
    decimals = len(value.partition(".")[2])
    exact = [low + i * step for i in range(int((high - low) / step) + 1)]
    texts = tuple(f"{number:.{decimals}f}" for number in exact)
    if any(Decimal(text) != number for text, number in zip(texts, exact, strict=True)):
        raise ValueError(f"the slider {name} needs more decimals: write its {value} with as many "
                         f"as its min and step have")  # fmt: skip
    return texts


def load_ipython_extension(shell: Any) -> None:
    """Show knobs below every cell that has some, from now on: for ``%load_ext attncore.knobs``."""
    try:
        import ipywidgets  # noqa: F401 (to say so before a cell needs it)
    except ModuleNotFoundError:
        from IPython.core.error import UsageError

        raise UsageError(
            "attncore.knobs needs ipywidgets, which is not installed: pip install ipywidgets"
        ) from None
    unload_ipython_extension(shell)
    shell.events.register("post_run_cell", _show)


def unload_ipython_extension(shell: Any) -> None:
    """Show no more knobs: for ``%unload_ext attncore.knobs``."""
    if _show in shell.events.callbacks["post_run_cell"]:
        shell.events.unregister("post_run_cell", _show)


def _show(result: Any) -> None:
    """Show the knobs of the cell that has just run."""
    code = result.info.raw_cell
    if _turning or not result.success or not LINE.search(code):
        return
    import ipywidgets
    from IPython.display import display

    try:
        knobs = find(code)
    except ValueError as problem:
        print(f"No knobs: {problem}.")
        return
    output = ipywidgets.Output()
    controls = {knob.name: _control(knob) for knob in knobs}
    for control in controls.values():
        control.observe(lambda _: _run(code, controls, output), names="value")
    display(ipywidgets.VBox([*controls.values(), output]))  # type: ignore[no-untyped-call]


def _control(knob: Knob) -> Any:
    import ipywidgets

    if knob.kind == "tick":
        return ipywidgets.Checkbox(value=knob.value == "True", description=knob.name)
    kind = ipywidgets.SelectionSlider if knob.kind == "slider" else ipywidgets.Dropdown
    return kind(options=knob.values, value=knob.value, description=knob.name)


_turning = False  # a cell runs because a knob was turned: it has its knobs already


def _run(code: str, controls: Mapping[str, Any], output: Any) -> None:
    """Run a cell again, as its knobs say."""
    global _turning
    from IPython import get_ipython
    from IPython.display import clear_output

    _turning = True
    try:
        with output:
            clear_output(wait=True)  # type: ignore[no-untyped-call]
            setting = {name: str(control.value) for name, control in controls.items()}
            get_ipython().run_cell(turned(code, setting))
    finally:
        _turning = False
