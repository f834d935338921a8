"""The cases of ONNX's Attention node, as they come in its package, put as calls of attention."""

from importlib import import_module

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case import node

import attncore as ac

ATOL = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
LEAST = 93  # cases there were in onnx 1.22
NO_SCORES = {0: "scaled", 1: "with the softcap", 2: "with the bias"}
"""The scores that a node can be asked for; only the weights, 3, are a result of ours."""
NAMES = ("attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")


def collected():
    """Return the cases: importing them calls `expect` for each, with what should come out."""
    seen = {}

    def expect(operation, inputs, outputs, name, **_):
        names = [name for name in operation.input if name]
        wanted = dict(zip([n for n in operation.output if n], outputs, strict=True))
        chosen = {a.name: onnx.helper.get_attribute_value(a) for a in operation.attribute}
        seen[name] = (dict(zip(names, inputs, strict=True)), chosen, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "expect", expect)
        import_module("onnx.backend.test.case.node.attention")
    return seen


CASES = collected()


def heads(x, count):
    """`(B, T, heads * D)` as `(B, heads, T, D)`."""
    B, T, width = x.shape
    return x.reshape(B, T, count, width // count).swapaxes(1, 2)


def call_of(given, chosen):
    """Return queries, keys, values, and the options of attention that say the same."""
    q, k, v = (given[name] for name in "QKV")
    if q.ndim == 3:
        G = chosen["kv_num_heads"]
        q, k, v = heads(q, chosen["q_num_heads"]), heads(k, G), heads(v, G)
    past = 0
    if "past_key" in given:
        past = given["past_key"].shape[2]
        k, v = (
            np.concatenate([given[name], x], axis=2)
            for name, x in (("past_key", k), ("past_value", v))
        )
    options = {name: chosen[name] for name in ("scale", "softcap") if chosen.get(name)}
    Tq, Tk = q.shape[2], k.shape[2]
    if "nonpad_kv_seqlen" in given:
        options["lengths"] = given["nonpad_kv_seqlen"].tolist()
    mask, bias = masks_of(given.get("attn_mask"), Tk)
    before, after = (chosen.get(f"{side}_window_size", -1) for side in ("left", "right"))
    causal = bool(chosen.get("is_causal"))
    if past == Tk - Tq and "lengths" not in options and causal and after == -1:
        options |= {"causal": True, "window": before + 1 if before >= 0 else None}
    elif causal or before >= 0 or after >= 0:
        # Theirs is upper-left, the end of the past or of each sequence's own keys: a mask.
        first = np.array(options["lengths"])[:, None, None] - Tq if "lengths" in options else past
        age = first + np.arange(Tq)[:, None] - np.arange(Tk)
        seen = np.ones_like(age, dtype=bool)
        if causal:
            seen &= age >= 0
        if before >= 0:
            seen &= age <= before
        if after >= 0:
            seen &= -age <= after
        seen = seen[:, None] if seen.ndim == 3 else seen
        mask = seen if mask is None else mask & seen
    return (q, k, v), {**options, "mask": mask, "bias": bias}


def masks_of(mask, Tk):
    """Return a boolean mask and a bias; keys that it leaves out at the end are not seen."""
    if mask is None:
        return None, None
    missing = [(0, 0)] * (mask.ndim - 1) + [(0, Tk - mask.shape[-1])]
    if mask.dtype == bool:
        return np.pad(mask, missing, constant_values=False), None
    return None, np.pad(mask, missing, constant_values=-np.inf)


def tensor(x):
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.ascontiguousarray(x))


def check(found, wanted, kind):
    found = found.float().numpy() if isinstance(found, torch.Tensor) else found
    if wanted.ndim == 3:
        found = found.swapaxes(1, 2).reshape(wanted.shape)
    np.testing.assert_allclose(
        found.astype(np.float32), wanted.astype(np.float32), rtol=ATOL[kind], atol=ATOL[kind]
    )


def test_all_cases_are_read():
    assert len(CASES) >= LEAST
    known = {*"QKV", *NAMES}
    assert {name for given, _, _ in CASES.values() for name in given} <= known
    attributes = {name for _, chosen, _ in CASES.values() for name in chosen}
    assert attributes <= {
        "is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "qk_matmul_output_mode",
        "right_window_size", "scale", "softcap",
        "softmax_precision",  # ours is 32 bits at least, whatever is asked for
    }  # fmt: skip


@pytest.mark.parametrize("library", ["numpy", "torch", "torch reference"])
@pytest.mark.parametrize("name", CASES)
def test_the_case_passes(name, library):
    given, chosen, wanted = CASES[name]
    inputs, options = call_of(given, chosen)
    kind = inputs[0].dtype.name
    if library == "numpy" and kind == "bfloat16":
        with pytest.raises(TypeError, match="q must hold real numbers, got bfloat16"):
            ac.attention(*inputs, **options)  # NumPy's own dtypes have none
        return
    if library != "numpy":
        inputs = [tensor(x) for x in inputs]
        options = {key: tensor(x) for key, x in options.items()}
    backend = "reference" if library == "torch reference" else "auto"
    check(ac.attention(*inputs, **options, backend=backend), wanted["Y"], kind)
    for part, x in (("present_key", inputs[1]), ("present_value", inputs[2])):
        if part in wanted:
            check(x, wanted[part], kind)
    if "qk_matmul_output" in wanted:
        mode = chosen.get("qk_matmul_output_mode", 0)
        if mode == 3:
            A = ac.attention_weights(*inputs[:2], **options)
            check(A, wanted["qk_matmul_output"], kind)
        else:
            assert mode in NO_SCORES
