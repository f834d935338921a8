"""Patches: every pixel where a loop puts it, for NumPy and torch, and back again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attncore as ac
from attncore.images import from_patches, patches


def by_loop(image, size):
    rows, columns, channels = image.shape
    return [
        [
            image[y + dy, x + dx, c]
            for dy in range(size)
            for dx in range(size)
            for c in range(channels)
        ]
        for y in range(0, rows, size)
        for x in range(0, columns, size)
    ]


def image_of(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


@given(
    down=st.integers(1, 4),
    across=st.integers(1, 4),
    size=st.integers(1, 5),
    channels=st.integers(1, 3),
)
def test_patches_are_what_a_loop_cuts_and_go_back(down, across, size, channels):
    image = image_of(down * size, across * size, channels)
    cut = patches(image, size)

    assert cut.tolist() == by_loop(image, size)
    assert (from_patches(cut, image.shape[:2], size) == image).all()


@pytest.mark.parametrize("batch", [(), (2,), (3, 2), (0,)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "bool"])
def test_both_libraries_any_batch_and_dtype(batch, dtype):
    images = image_of(*batch, 15, 21, 2).astype(dtype)
    cut, tensor = patches(images, 3), patches(torch.from_numpy(images), 3)
    back = from_patches(tensor, (15, 21), 3)

    assert cut.shape == (*batch, 35, 18)
    assert (cut.dtype, tensor.dtype) == (images.dtype, torch.from_numpy(images).dtype)
    assert isinstance(tensor, torch.Tensor)
    assert (tensor.numpy() == cut).all()
    assert (back.numpy() == images).all()
    for flat, image in zip(cut.reshape(-1, 35, 18), images.reshape(-1, 15, 21, 2), strict=True):
        assert flat.tolist() == by_loop(image, 3)


def test_gradients_pass_through():
    images = torch.randn(1, 4, 6, 1, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: patches(x, 2), images)
    assert torch.autograd.gradcheck(
        lambda x: from_patches(x, (4, 6), 2), patches(images, 2).detach().requires_grad_()
    )


def test_inputs_stay_as_they_were():
    images = image_of(4, 6, 3)
    images.setflags(write=False)
    cut = patches(images[::-1], 2)
    from_patches(cut, (4, 6), 2)

    assert (images == image_of(4, 6, 3)).all()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: patches([[1]], 1), TypeError, "images must be a NumPy array or a torch tensor"),
        (lambda: patches(np.ones((8, 8)), 2), ValueError, r"got \(8, 8\); a gray image has one"),
        (lambda: patches(np.ones((8, 8, 1)), 0), ValueError, "size must be at least 1, got 0"),
        (lambda: patches(np.ones((8, 8, 1)), 2.0), TypeError, "size must be an integer, got float"),
        (
            lambda: patches(np.ones((3, 8, 9)), 2),
            ValueError,
            r"size \(2\) must divide rows \(3\) and columns \(8\); the axes are \(\.\.\., rows",
        ),
        (
            lambda: patches(np.ones((8, 9, 1)), 2),
            ValueError,
            r"must divide rows \(8\) and columns \(9\)",
        ),
        (lambda: from_patches([1], (1, 1), 1), TypeError, "rows must be a NumPy array"),
        (
            lambda: from_patches(np.ones((15, 12)), (8, 8), 2),
            ValueError,
            r"must be \(\.\.\., 16, 4 \* channels\) for images of 8 x 8 pixels in squares of 2",
        ),
        (
            lambda: from_patches(np.ones((16, 6)), (8, 8), 2),
            ValueError,
            r"in squares of 2, got \(16, 6\)",
        ),
        (lambda: from_patches(np.ones(16), (4, 4), 2), ValueError, r"got \(16,\)"),
        (
            lambda: from_patches(np.ones((4, 4)), (4.0, 4), 2),
            TypeError,
            "rows in shape must be an integer, got float",
        ),
        (
            lambda: from_patches(np.ones((4, 4)), (4, 4.0), 2),
            TypeError,
            "columns in shape must be an integer, got float",
        ),
        (
            lambda: from_patches(np.ones((4, 4)), (-4, -4), 2),
            ValueError,
            "rows in shape must not be negative, got -4",
        ),
        (
            lambda: from_patches(np.ones((4, 4)), (4, -4), 2),
            ValueError,
            "columns in shape must not be negative, got -4",
        ),
        (
            lambda: from_patches(np.ones((16, 12)), (8, 8, 3), 2),
            ValueError,
            r"shape must be \(rows, columns\), got \(8, 8, 3\)",
        ),
        (
            lambda: from_patches(np.ones((4, 4)), 4, 2),
            TypeError,
            r"shape must be a tuple \(rows, columns\), got int",
        ),
        (
            lambda: from_patches(np.ones((4, 4)), (4, 5), 2),
            ValueError,
            r"must divide rows \(4\) and columns \(5\)",
        ),
    ],
)
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_the_module_comes_with_the_package():
    assert ac.images.patches is patches
