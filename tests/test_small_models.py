"""The models trained for chapters 4 and 5 are what the README of the data says of them."""

import numpy as np
import pytest
import torch
from babel.dates import format_skeleton
from train_date_models import KINDS, Recurrent, curve
from train_tasks import KEPT as TASK_STEPS
from train_tasks import error
from train_translators import KEPT, TEST, covering, date_pairs, states

from attncore import models, nn

PAIRS = date_pairs()


def share(model):
    """Return which share of 100 new lists of one, two and three dates is written right."""
    out = model.translate([source for source, _ in PAIRS[:TEST]])
    right = [o == target for o, (_, target) in zip(out, PAIRS[:TEST], strict=True)]
    return np.reshape(right, (-1, 3)).mean(axis=0).tolist()


@pytest.mark.parametrize(
    ("name", "step", "told"),
    [
        ("translator", 300, [1, 0.99, 0.88]),
        ("translator", 1500, [1, 1, 1]),
        ("summary", 300, [0.88, 0.05, 0]),
        ("summary", 1500, [1, 0.94, 0.52]),
    ],
)
def test_the_translators_write_as_many_lists_as_told(name, step, told):
    model = models.trained(name, step, np.float32)
    theirs = nn.Translator(covering(PAIRS[TEST:]), summary=name == "summary")
    state = {key: torch.from_numpy(array) for key, array in model.state_dict().items()}
    theirs.load_state_dict(state)

    assert models.steps(name) == KEPT[name]
    assert share(model) == told
    assert theirs.numbers == model.numbers
    assert theirs.translate(["5 Sept"]) == model.translate(["5 Sept"]) == ["9月5日"]


def test_the_translators_know_what_dates_are_made_of():
    whole, few = nn.Translator(PAIRS), models.trained("translator")

    assert (whole.numbers, whole.letters, whole.longest) == (few.numbers, few.letters, few.longest)
    assert len(covering(PAIRS)) < 20


def test_dates_are_spelled_as_the_unicode_tables_do():
    dates = {pair for n, pair in enumerate(PAIRS) if n % 3 == 0}
    for british, chinese in dates:
        month, day = map(int, chinese[:-1].split("月"))
        date = np.datetime64(f"2024-{month:02}-{day:02}").item()
        told = [format_skeleton("MMMd", date, locale=place) for place in ("en_GB", "zh")]
        assert [british, chinese] == told
    assert len(dates) > 360


def test_what_is_kept_is_what_was_there_after_the_step(monkeypatch):
    pairs = PAIRS[:50]
    monkeypatch.setattr("train_translators.LAST", 3)
    torch.manual_seed(0)
    found = states(nn.Translator(pairs, d_model=8), pairs, [0, 1, 3])
    torch.manual_seed(0)
    new = nn.Translator(pairs, d_model=8).state_dict()

    assert list(found) == [0, 1, 3]
    assert all(torch.equal(found[0][name], value) for name, value in new.items())
    for a, b in ((0, 1), (1, 3)):
        assert not torch.equal(found[a]["output.weight"], found[b]["output.weight"])


def test_the_two_tasks_are_solved_as_told():
    assert models.steps("marked") == models.steps("previous") == TASK_STEPS
    assert error("marked", 300) < 0.001
    assert round(error("previous", 300), 2) == 0.88
    assert min(error(task, 0) for task in ("marked", "previous")) > 1


@pytest.mark.parametrize("attend", [False, True])
def test_a_recurrent_translator_does_not_read_what_fills_a_batch_up(attend):
    torch.manual_seed(0)
    model = Recurrent(PAIRS[:50], attend=attend, d_model=8)
    targets = torch.zeros(2, 1, dtype=torch.int64)
    alone = model(["5 Sept"], targets[:1])
    beside = model(["5 Sept", "5 Sept, 6 Sept"], targets)

    assert torch.allclose(alone[0], beside[0], atol=1e-6)
    assert not torch.allclose(beside[0], beside[1], atol=1e-3)


def test_a_curve_has_the_shares_of_each_step():
    for kind in KINDS:
        found = curve(kind, 0, steps=(1, 2))
        assert np.shape(found) == (2, 3)
        assert np.max(found) <= 0.1
