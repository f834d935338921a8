"""Models trained beforehand are kept at several steps, and come back as they were."""

from importlib import import_module

import kept_models
import numpy as np
import pytest
import torch

from attncore import models, nn
from attncore.data import files

KEPT = import_module("attncore.models.trained")  # the package has a function of this name
LM = {"d_model": 8, "layers": 1, "heads": 2, "kv_heads": 1, "context": 9}
VIT = {"size": 2, "d_model": 12, "layers": 1, "heads": 3}
MADE = {
    "MultiHeadAttention": ([8, 2], {"bias": False}),
    "Block": ([8, 2], {}),
    "Decoder": (["abc "], LM),
    "Translator": ([[["ab", "xy"], ["b", "y"]]], {"d_model": 8, "heads": 2}),
    "VisionTransformer": ([[4, 6, 1], 5], VIT),
}
STEPS = [0, 10, 300]


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Return a function that keeps a model in a folder of its own, and makes its name known."""
    monkeypatch.setattr(kept_models, "FOLDER", tmp_path / "trained")
    monkeypatch.setattr(files, "files", lambda package: tmp_path)

    def keep_as(name, kind, library=nn, steps=STEPS):
        given, named = MADE[kind]
        states = {}
        for step in reversed(steps):  # the order in which they are handed over does not matter
            torch.manual_seed(step)
            options = {} if library is nn else {"rng": step}
            states[step] = getattr(library, kind)(*given, **named, **options).state_dict()
        path = kept_models.keep(name, kind, given, named, states)
        monkeypatch.setattr(KEPT, "TRAINED", (*KEPT.TRAINED, name))
        return path, states

    return keep_as


def rounded(array):
    return np.asarray(array, np.float16).astype(np.float64)


@pytest.mark.parametrize("library", [nn, models])
@pytest.mark.parametrize("kind", MADE)
def test_each_step_comes_back_rounded_to_16_bits(keep, kind, library):
    path, states = keep("toy", kind, library)
    assert path.name == "toy.npz"
    assert models.steps("toy") == STEPS
    for step in STEPS:
        model = models.trained("toy", step)
        state = model.state_dict()

        assert type(model) is getattr(models, kind)
        assert state.keys() == states[step].keys()
        for name, array in state.items():
            assert array.dtype == np.float64
            assert np.array_equal(array, rounded(states[step][name])), name
    first, last = (models.trained("toy", step).state_dict() for step in (0, None))
    assert any(not np.array_equal(first[name], last[name]) for name in last)
    assert all(np.array_equal(last[n], rounded(states[300][n])) for n in last)


def test_the_dtype_is_chosen_and_torch_takes_the_parameters_over(keep):
    keep("toy", "Decoder")
    ours = models.trained("toy", dtype=np.float32)
    theirs = nn.Decoder("abc ", **LM)
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    tokens = ours.encode("a cab")

    assert ours(tokens).dtype == np.float32
    assert np.abs(ours(tokens) - theirs(torch.from_numpy(tokens)).detach().numpy()).max() < 1e-5


def test_a_model_is_read_anew_each_time(keep):
    keep("toy", "Block")
    state = models.trained("toy").state_dict()
    for array in state.values():
        array[...] = 7

    assert all((a != 7).any() for a in models.trained("toy").state_dict().values() if a.ndim == 2)


def test_an_unknown_name_or_step_is_named(keep):
    keep("toy", "Block")
    keep("other", "Block")
    for call in (models.trained, models.steps):
        with pytest.raises(ValueError, match=r"name must be one of .*toy, other, got 'dog'"):
            call("dog")
    for step in (5, -1, "10", 10.5):
        with pytest.raises(ValueError, match=rf"toy was kept at the steps 0, 10, 300, got {step}"):
            models.trained("toy", step)


def test_a_name_whose_file_is_missing_is_told_what_to_do(keep):
    path, _ = keep("toy", "Block")
    path.unlink()
    for call in (models.trained, models.steps):
        with pytest.raises(
            FileNotFoundError, match=r'^trained/toy.npz is not .* trained\("toy"\) '
        ):
            call("toy")


def test_every_file_that_is_kept_has_its_name():
    folder = kept_models.FOLDER
    names = sorted(path.stem for path in folder.glob("*.npz")) if folder.exists() else []

    assert sorted(KEPT.TRAINED) == names
    for name in names:
        at = models.steps(name)
        assert at == sorted(set(at))
        for step in at:
            kept = models.trained(name, step)
            states = kept.values() if isinstance(kept, dict) else [kept.state_dict()]
            assert all(np.isfinite(array).all() for state in states for array in state.values())
