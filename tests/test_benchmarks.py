"""The benchmarks compare like with like, and README.md shows what they found."""

import attention as attention_cases
import decoding
import layers
import pytest
import report
import timing
import torch

CPU = torch.device("cpu")
# torch's own compiler uses it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")


@pytest.mark.parametrize(
    "case",
    [
        lambda: attention_cases.square(CPU, torch.float32, False, 37),
        lambda: attention_cases.square(CPU, torch.float32, True, 37),
        lambda: attention_cases.chunk(CPU, torch.float32, 5, 11),
        lambda: attention_cases.window(CPU, torch.float32, 40, 8),
        lambda: attention_cases.padded(CPU, torch.float32, 3, 8),
        lambda: attention_cases.grouped(CPU, torch.float32),
    ],
    ids=["square", "causal", "chunk", "window", "padded", "grouped"],
)
def test_peers_of_attention_compute_the_same(case):
    _, runs = case()
    ours = runs.pop("ours")()
    same = [name for name in runs if not name.endswith(("no window", "no mask"))]

    assert same
    for name in same:
        found = runs[name]()
        if isinstance(found, list):  # of blocks
            found = torch.cat(found, dim=2)
        torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-5, msg=name)


def test_cases_in_16_bits_have_another_name():
    names = [attention_cases.grouped(CPU, t)[0] for t in (torch.float32, torch.bfloat16)]

    assert names == [
        "decode, 8 heads on 2, 4096 keys",
        "decode, 8 heads on 2, 4096 keys, bfloat16",
    ]


def test_each_of_torchs_kernels_is_a_peer_where_it_can_be_used(monkeypatch):
    q, k, v = torch.randn(3, 1, 2, 5, 16)
    assert attention_cases.each_of_torchs(q, k, v, causal=True) == {}  # they are for a GPU

    monkeypatch.setattr(attention_cases.cuda, "can_use_flash_attention", lambda inputs: True)
    calls = attention_cases.each_of_torchs(q, k, v, causal=True)

    assert list(calls) == ["torch's flash_attention"]
    torch.testing.assert_close(
        calls["torch's flash_attention"](), attention_cases.sdpa(q, k, v, is_causal=True)
    )


def test_peers_of_the_layer_compute_the_same():
    peers = layers.make(CPU)

    assert len(peers) == 5
    x = torch.randn(1, 7, layers.WIDTH)
    for name, layer in peers.items():
        torch.testing.assert_close(layer(x), peers["ours"](x), rtol=1e-4, atol=1e-4, msg=name)


def test_peers_of_decoding_generate_the_same():
    ours, theirs = decoding.models(CPU)
    prompt = torch.randint(65, (1, 9))
    tokens = ours.generate(prompt, 5)

    assert torch.equal(ours.generate(prompt, 5, cached=False), tokens)
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=1e-5)


def test_the_peak_of_memory_is_seen():
    peak = timing.peak_megabytes(lambda: torch.ones(30_000_000).sum(), CPU)

    assert peak is None or 110 < peak < 200  # 120 MB; None where the system does not tell


def test_medians_are_of_every_run():
    calls = []
    runs = {name: (lambda name=name: calls.append(name)) for name in "abcde"}
    found = timing.medians(runs, CPU, 0.0)

    assert list(found) == list("abcde")
    warm_up, *rounds = ["".join(calls[n : n + 5]) for n in range(0, len(calls), 5)]
    assert warm_up == "abcde"
    assert len(rounds) == 9
    assert len(set(rounds)) > 1  # in another order each time
    assert all(sorted(turn) == list("abcde") for turn in rounds)


def test_the_readme_shows_the_figures_that_were_kept():
    text = report.README.read_text("utf-8")

    assert text == report.written(text)
    assert "| decoding:" in text
