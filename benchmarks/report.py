"""Write README.md's table of speeds from the figures that the package keeps.

python benchmarks/report.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attncore.data import speeds

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MARKS = re.compile(r"(<!-- speeds: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHOWN = (  # group, case, peer
    ("attention", "float32, causal, T = 512", "torch's kernel"),
    ("attention", "float32, causal, T = 4096", "torch's kernel"),
    ("attention", "float32, causal, T = 4096", "written out"),
    ("attention", "bfloat16, causal, T = 4096", "torch's kernel"),
    ("attention", "window 256, T = 4096", "torch's kernel, mask"),
    ("attention", "causal, 512 queries on 2048 keys", "torch's kernel, mask"),
    ("attention", "8 sequences of 512 to 1024 keys", "torch's kernel, mask"),
    ("attention", "decode, 8 heads on 2, 4096 keys", "torch's kernel, enable_gqa"),
    ("layer", "forward, (1, 2048)", "torch.nn.MultiheadAttention"),
    ("layer", "forward and backward, (1, 2048)", "torch.nn.MultiheadAttention"),
    ("decoding", "64 tokens after 64, batch 1", "transformers, dynamic cache"),
)


def table(found: dict[str, Any]) -> str:
    """Return the lines that stand between the marks."""
    rows = {(row["group"], row["case"]): row["ms"] for row in found["rows"]}
    left_out = found.get("left_out", {}).items()  # older files lack it
    lines = [
        f"Measured on {found['date']}, on {found['machine']}, {found['threads']} threads, "
        f"torch {found['torch']}:",
        "",
        "| case | attncore | peer | peer's time / ours |",
        "|---|---|---|---|",
    ]
    for group, case, peer in SHOWN:
        times = rows.get((group, case), {})
        if peer not in times:  # a machine without its hardware, or without a compiler
            continue
        ours, theirs = times["ours"], times[peer]
        lines.append(f"| {group}: {case} | {ours:.3g} ms | {peer} | {theirs / ours:.2f} |")
    if left_out:
        lines += ["", f"Left out there: {'; '.join(f'{name} ({why})' for name, why in left_out)}."]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return the text of README.md with the table of the results it names."""
    name = MARKS.search(text)["name"]
    return MARKS.sub(lambda match: match[1] + table(speeds(name)) + match[3], text)


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
