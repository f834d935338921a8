"""The vision transformer: its formula, its blindness to order, its masks, and that it learns."""

import copy
import math

import numpy as np
import pytest
import torch
import train_vision

import attncore as ac
from attncore.images import from_patches, patches
from attncore.models import steps, trained
from attncore.nn import VisionTransformer

SHAPE = (4, 6, 3)  # 2 x 3 patches of side 2
ORDER = torch.tensor([4, 2, 5, 0, 1, 3])
SIZES = {"size": 2, "d_model": 10, "layers": 3, "heads": 5}


def made(**options):
    torch.manual_seed(0)
    return VisionTransformer(SHAPE, 7, **{**SIZES, **options}).double()


@pytest.fixture
def images():
    return torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def shuffled(images):
    return from_patches(patches(images, 2)[:, ORDER], SHAPE[:2], 2)


def by_loop(model, image):
    """Return the logits of one image in plain NumPy: row by row, head by head."""
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def norm(row, name):
        row = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
        return row * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(row, name):
        return p[f"{name}.weight"] @ row + p[f"{name}.bias"]

    def gelu(row):
        return np.array([z * (1 + math.erf(z / math.sqrt(2))) / 2 for z in row])

    x = [p["cls"][0]]
    for top in range(0, SHAPE[0], 2):
        for left in range(0, SHAPE[1], 2):
            x.append(linear(image[top : top + 2, left : left + 2].ravel(), "embed"))
    if "position" in p:
        x = [row + place for row, place in zip(x, p["position"], strict=True)]
    for name in (f"blocks.{n}" for n in range(3)):
        maps = p[f"{name}.attention.in_proj_weight"].reshape(3, 5, 2, 10)  # q k v, H, D, d
        q, k, v = ([m @ norm(row, f"{name}.norm1") for row in x] for m in maps)  # each (H, D)
        mixed = []
        for i in range(len(x)):
            heads = []
            for h in range(5):
                power = [math.exp(q[i][h] @ k[j][h] / math.sqrt(2)) for j in range(len(x))]
                heads += [sum(w * v[j][h] for j, w in enumerate(power)) / sum(power)]
            mixed.append(p[f"{name}.attention.out_proj.weight"] @ np.concatenate(heads))
        x = [row + new for row, new in zip(x, mixed, strict=True)]
        hidden = [gelu(linear(norm(row, f"{name}.norm2"), f"{name}.up")) for row in x]
        x = [row + linear(h, f"{name}.down") for row, h in zip(x, hidden, strict=True)]
    return linear(norm(x[0], "norm"), "head")


@pytest.mark.parametrize("positions", [True, False])
def test_it_is_what_a_loop_computes(images, positions):
    model = made(positions=positions)
    with torch.no_grad():
        logits = model(images)

    assert logits.shape == (2, 7)
    for image, scored in zip(images.numpy(), logits, strict=True):
        assert np.allclose(scored, by_loop(model, image), rtol=0, atol=1e-12)


def test_without_positions_no_order_is_like_another(images):
    model, blind = made(), made(positions=False)

    assert blind.position is None
    assert torch.allclose(blind(shuffled(images)), blind(images), rtol=0, atol=1e-12)
    assert not torch.allclose(model(shuffled(images)), model(images), rtol=0, atol=1e-3)


def test_a_table_shuffled_alike_changes_nothing(images):
    model = made()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.position[1:] = model.position[1:][ORDER]

    assert torch.allclose(other(shuffled(images)), model(images), rtol=0, atol=1e-12)


def test_a_hidden_patch_is_never_read(images):
    model = made()
    keep = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    other = images.clone()
    other[1, :2, 2:4] = 9.0  # patch 1
    other[1, 2:, 2:4] = -9.0  # patch 4

    assert torch.equal(model(images, keep), model(other, keep))
    assert torch.allclose(model(images, keep)[0], model(images)[0], rtol=0, atol=1e-12)
    assert not torch.allclose(model(images)[1], model(other)[1])
    none = torch.zeros(2, 6, dtype=torch.bool)  # CLS still has itself
    assert torch.equal(model(images, none)[0], model(images, none)[1])


@pytest.mark.parametrize("hide", [False, True])
def test_the_weights_are_those_of_the_forward_pass(images, hide):
    model = made()
    keep = torch.tensor([[True, False, True, True, True, False]] * 2) if hide else None
    seen = []
    hooks = [
        block.attention.register_forward_hook(
            lambda layer, inputs, options, out: seen.append((layer, inputs[0], options["mask"])),
            with_kwargs=True,
        )
        for block in model.blocks
    ]
    model(images, keep)
    for hook in hooks:
        hook.remove()
    weights = model.weights(images, keep)

    assert weights.shape == (3, 2, 5, 7, 7)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 2, 5, 7, dtype=torch.float64))
    for mine, (layer, x, mask) in zip(weights, seen, strict=True):
        assert torch.equal(mine, layer.weights(x, mask=mask))
    assert (weights[..., 2] == 0).all() == hide


def test_gradients_reach_every_parameter(images):
    model = made()
    model(images).pow(2).mean().backward()

    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_gradients_are_right():
    torch.manual_seed(0)
    model = VisionTransformer((2, 4, 1), 3, size=2, d_model=4, layers=1, heads=2).double()
    images = torch.randn(1, 2, 4, 1, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(model, images)


def test_it_learns_where_ink_is():
    torch.manual_seed(0)
    images = torch.zeros(8, 4, 4, 1)
    images[torch.arange(8), torch.arange(8) % 4] = 1.0  # a line in row n % 4
    labels = torch.arange(8) % 4
    model = VisionTransformer((4, 4, 1), 4, size=2, d_model=8, layers=1, heads=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert (model(images).argmax(dim=1) == labels).all()


def test_it_reads_the_books_digits():
    images, _ = ac.data.digits()
    model = VisionTransformer((8, 8, 1), 10, size=2, d_model=8, layers=1, heads=2)

    assert model(torch.from_numpy(images[:3, ..., None]).float()).shape == (3, 10)
    assert model.weights(torch.zeros(0, 8, 8, 1)).shape == (1, 0, 2, 17, 17)


KEPT = {"vision": 0.9, "vision_second": 0.9, "vision_no_positions": 0.6}


@pytest.mark.parametrize(("name", "right"), KEPT.items())
def test_the_kept_models_learned_the_digits(name, right):
    recipe = train_vision.RECIPES[name]
    first, last = (train_vision.share_right(name, step) for step in (recipe.kept[0], None))

    assert steps(name) == list(recipe.kept)
    assert (trained(name).position is not None) == recipe.positions
    assert last > right
    assert first < 0.2 or len(recipe.kept) == 1


def test_a_kept_model_is_the_same_in_torch():
    numpys = trained("vision", 45)
    torchs = VisionTransformer((8, 8, 1), 10, **train_vision.SIZES).double()
    torchs.load_state_dict({name: torch.from_numpy(p) for name, p in numpys.state_dict().items()})
    images = train_vision.parts()[1][0][:20]

    found = torchs(torch.from_numpy(images)).detach().numpy()

    assert np.allclose(found, numpys(images), atol=1e-12)
    assert not np.allclose(found, trained("vision", 60)(images), atol=0.1)


def test_the_parts_share_no_image():
    (learned, _), (held_out, labels) = train_vision.parts()
    both = np.concatenate([learned, held_out])

    assert held_out.shape == (360, 8, 8, 1)
    assert set(labels) == set(range(10))
    assert (np.sort(both, axis=0) == np.sort(ac.data.digits()[0] / 16, axis=0)[..., None]).all()


def test_kept_steps_of_training_are_the_same_each_time():
    short = train_vision.Recipe(seed=3, positions=True, kept=(0, 2))
    one, two = train_vision.train(short), train_vision.train(short)

    assert list(one) == [0, 2]
    assert all((one[2][name] == two[2][name]).all() for name in one[2])
    assert (one[0]["position"] != one[2]["position"]).any()


def test_all_is_made_where_the_parameters_are(images):
    model = made()
    expected = model(images, KEEP), model.weights(images)
    with torch.device("meta"):  # whatever forgot to say where would be made there
        found = model(images, KEEP), model.weights(images)

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    sketch = model.to("meta")
    assert sketch(images.to("meta"), KEEP.to("meta")).device.type == "meta"


KEEP = torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda m, x: m(x.float()),
            TypeError,
            r"images must be float64, as the parameters are, got float32",
        ),
        (
            lambda m, x: m(x.numpy()),
            TypeError,
            r"a torch tensor, got ndarray: use torch.from_",
        ),
        (lambda m, x: m([1]), TypeError, r"images must be a torch tensor, got list"),
        (lambda m, x: m(x[0]), ValueError, r"must be \(B, 4, 6, 3\), got \(4, 6, 3\)"),
        (lambda m, x: m(x.mT), ValueError, r"must be \(B, 4, 6, 3\), got \(2, 4, 3, 6\)"),
        (
            lambda m, x: m.weights(x, KEEP.float()),
            TypeError,
            r"keep must be boolean \(True = attend\), got float32",
        ),
        (
            lambda m, x: m(x, KEEP[:1]),
            ValueError,
            r"keep must be \(B, T\) = \(2, 6\), got \(1, 6\)",
        ),
        (
            lambda m, x: m(x, KEEP.numpy()),
            TypeError,
            r"keep must be a torch tensor, got ndarray: use torch.from_numpy",
        ),
        (
            lambda m, x: m(x, KEEP.to("meta")),
            ValueError,
            r"on one device: keep on meta, parameters on cpu; move them",
        ),
        (
            lambda m, x: m(x.to("meta")),
            ValueError,
            r"on one device: images on meta, parameters on cpu; move them",
        ),
        (lambda m, x: m(x.to_sparse()), TypeError, r"images must be dense and not nested"),
    ],
)
def test_the_error_says_what_is_wrong(images, call, kind, message):
    with pytest.raises(kind, match=message):
        call(made(), images)


@pytest.mark.parametrize(
    ("shape", "options", "kind", "message"),
    [
        ((8, 8), {}, ValueError, r"shape must be \(rows, columns, channels\), got \(8, 8\)"),
        (8, {}, TypeError, r"shape must be a tuple \(rows, columns, channels\), got int"),
        ((0, 6, 3), {}, ValueError, "rows must be at least 1, got 0"),
        ((4, 6.0, 3), {}, TypeError, "columns must be an integer, got float"),
        ((4, 6, 0), {}, ValueError, "channels must be at least 1, got 0"),
        ((4, 5, 3), {}, ValueError, r"size \(2\) must divide rows \(4\) and columns \(5\)"),
        (SHAPE, {"d_model": 10.0}, TypeError, "d_model must be an integer, got float"),
        (SHAPE, {"size": 2.0}, TypeError, "size must be an integer, got float"),
        (SHAPE, {"layers": 0}, ValueError, "layers must be at least 1, got 0"),
        (SHAPE, {"classes": -1}, ValueError, "classes must be at least 1, got -1"),
        (SHAPE, {"heads": 3}, ValueError, r"heads \(3\) must divide d_model \(10\)"),
    ],
)
def test_sizes_must_fit(shape, options, kind, message):
    with pytest.raises(kind, match=message):
        VisionTransformer(shape, **{"classes": 7, **SIZES, **options})
