"""The style sheet of all pictures. It is one text, so that two pictures on a page cannot disagree.

Every class begins with `ac-`: a page's own style sheet must not reach in, nor this one out.
"""

from __future__ import annotations

from functools import cache

from attncore.draw.colors import COLORS, ROLES

SANS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif'
SERIF = '"STIX Two Text","Times New Roman","Noto Serif",serif'
MOST = 16  # rows and columns that can be lit together
NARROW = 600  # pixels: a page at most this wide shows the tall layout


def paint(name: str, what: str = "fill") -> str:
    """Return a rule's colour, for a page that sets variables and for a program that has none."""
    color = COLORS[name].light
    return f"{what}:{color};{what}:var(--ac-{name},{color})"


@cache
def sheet() -> str:
    """Return what each picture carries, to be read on its own: dark ink on white."""
    rules = [
        f".ac-picture text{{font:13.5px {SANS};font-family:var(--ac-font,{SANS});"
        f"font-variant-numeric:tabular-nums;text-anchor:middle;{paint('ink')}}}",
        ".ac-picture .ac-start{text-anchor:start}.ac-picture .ac-end{text-anchor:end}",
        ".ac-picture .ac-small{font-size:12px}.ac-picture .ac-bold{font-weight:600}",
        f".ac-picture .ac-name{{font:italic 600 17px {SERIF}}}",
        f".ac-picture .ac-size{{font:400 12px {SANS};{paint('soft')}}}",
        ".ac-picture .ac-halo{paint-order:stroke;stroke:#fff;stroke:var(--ac-halo,#fff);"
        "stroke-width:4px}",
        ".ac-paper{fill:#fff;fill:var(--ac-paper,#fff)}",
    ]
    for name in COLORS:
        rules.append(
            f".ac-picture .ac-{name},.ac-picture text.ac-{name}{{{paint(name)}}}"
            f".ac-picture .ac-line.ac-{name}{{fill:none;{paint(name, 'stroke')}}}"
        )
    rules += [
        ".ac-picture .ac-line{fill:none;stroke-width:1.5;stroke-linecap:round;"
        "stroke-linejoin:round}.ac-picture .ac-dash{stroke-dasharray:3 3}",
        ".ac-outline,.ac-tall,.ac-picture .ac-off{display:none}",
        # A row is past, now or later.
        ".ac-later:not(.ac-lit) .ac-cell text{visibility:hidden}"
        ".ac-later:not(.ac-lit) rect:not(.ac-gone){fill-opacity:.05}",
        ".ac-now .ac-outline{display:inline;stroke-width:2}",
        f".ac-picture .ac-kept.ac-past rect:not(.ac-gone){{{paint('soft')};fill-opacity:.16}}"
        f".ac-picture .ac-kept.ac-past text{{{paint('soft')}}}",
        ".ac-dropped.ac-past text{fill-opacity:.35}.ac-dropped.ac-past rect{fill-opacity:.05}",
        # What belongs to the cell that is pointed at stays lit.
        "@media(hover:hover){.ac-picture:where(:has(.ac-cell:hover)) .ac-cell{opacity:.2}"
        ".ac-picture:has(.ac-cell:not(.ac-i,.ac-j):hover) .ac-cell{opacity:1}",
        ",".join(
            f".ac-picture:has(.ac-{axis}{n}:hover) .ac-{axis}{n}"
            for axis in "ij"
            for n in range(MOST)
        )
        + "{opacity:1}"
        # All keys belong to a query, and all queries to a key.
        ".ac-picture:has(.ac-i:not(.ac-j):hover) .ac-j:not(.ac-i),"
        ".ac-picture:has(.ac-j:not(.ac-i):hover) .ac-i:not(.ac-j){opacity:1}}",
    ]
    return "".join(rules)


def symbols() -> str:
    """Return what colours the symbols of formulas.

    Pointing at one lights its matrices in the pictures of its section.
    """
    rules = []
    for role in ROLES:
        pictures = f"section:has(>:not(section) .ac-sym-{role}:hover) .ac-picture"
        rules += [
            f".ac-sym-{role}{{{paint(role, 'color')}}}",
            f"{pictures}:has(.ac-m-{role}) .ac-cell{{opacity:.2}}",
            f"{pictures} .ac-m-{role} .ac-cell{{opacity:1}}",
        ]
    return "".join(rules)


def page_sheet() -> str:
    """Return what a page of the book carries once: theme, layout for narrow pages, and the rest."""
    dark = "".join(f"--ac-{name}:{color.dark};" for name, color in COLORS.items())
    return (
        "html{--ac-paper:transparent;--ac-halo:var(--pst-color-background,#fff);"
        "--ac-font:var(--pst-font-family-base)}\n"
        f'@media not print{{html[data-theme="dark"]{{{dark}}}}}\n'
        f"{sheet()}\n{symbols()}\n"
        ".ac-picture{display:block;margin:0 auto}\n"
        f"@media(max-width:{NARROW}px){{"
        ".ac-picture.ac-two{aspect-ratio:var(--ac-ratio);width:min(100%,var(--ac-tall))}"
        ".ac-two>.ac-wide{display:none}.ac-two>.ac-tall{display:inline}}\n"
    )
