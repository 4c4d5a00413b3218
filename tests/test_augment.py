"""Batched augmentation against a loop over images with bilinear interpolation written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib.augment import crop_and_flip, crop_parameters, to_float


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_crop(image: np.ndarray, size, centre) -> np.ndarray:
    """One image (3, row, column): output pixel by output pixel, four neighbours each."""
    _, height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            # from the output pixel's centre in -1..1 to the window, then to input pixels
            x = (2 * column + 1) / width - 1
            y = (2 * row + 1) / height - 1
            u = ((x * size[0] + centre[0] + 1) * width - 1) / 2
            v = ((y * size[1] + centre[1] + 1) * height - 1) / 2
            u, v = min(max(u, 0), width - 1), min(max(v, 0), height - 1)
            left, top = min(int(u), width - 2), min(int(v), height - 2)
            a, b = u - left, v - top
            out[:, row, column] = (
                (1 - b) * ((1 - a) * image[:, top, left] + a * image[:, top, left + 1])
                + b * ((1 - a) * image[:, top + 1, left] + a * image[:, top + 1, left + 1])
            )  # fmt: skip
    return out


def slow_parameters(u, scale: float, flip: bool):
    """One sample's window from its five uniform numbers."""
    area = scale + (1 - scale) * u[0]
    aspect = math.exp((2 * u[1] - 1) * math.log(4 / 3)) if scale < 1 else 1.0
    width, height = min(1, math.sqrt(area * aspect)), min(1, math.sqrt(area / aspect))
    centre = ((2 * u[2] - 1) * (1 - width), (2 * u[3] - 1) * (1 - height))
    return (-width if flip and u[4] < 0.5 else width, height), centre


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.0])
def test_crops_equal_the_loop_over_images(scale):
    images = torch.rand(6, 3, 12, 12, generator=gen(1))
    size, centre = crop_parameters(6, scale, True, gen(2))
    fast = crop_and_flip(images, size, centre).numpy()
    slow = [
        slow_crop(i, s, c)
        for i, s, c in zip(images.numpy(), size.numpy(), centre.numpy(), strict=True)
    ]
    np.testing.assert_allclose(fast, slow, atol=2e-6)


@pytest.mark.parametrize(("scale", "flip"), [(0.3, True), (0.6, False), (1.0, True)])
def test_parameters_equal_the_loop_over_samples(scale, flip):
    size, centre = crop_parameters(50, scale, flip, gen(5))
    u = torch.rand(50, 5, generator=gen(5)).numpy()
    for i in range(50):
        (width, height), (x, y) = slow_parameters(u[i], scale, flip)
        np.testing.assert_allclose(size[i], (width, height), rtol=1e-5)
        np.testing.assert_allclose(centre[i], (x, y), atol=1e-6)


def test_no_crop_and_no_flip_is_the_identity():
    images = torch.rand(5, 3, 32, 32, generator=gen())
    size, centre = crop_parameters(5, 1.0, False, gen(1))
    assert size.tolist() == [[1.0, 1.0]] * 5 and not centre.any()
    torch.testing.assert_close(crop_and_flip(images, size, centre), images, atol=1e-5, rtol=0)


def test_a_flip_is_the_mirrored_picture():
    images = torch.rand(40, 3, 16, 16, generator=gen())
    size, centre = crop_parameters(40, 1.0, True, gen(3))
    mirrored = size[:, 0] < 0
    assert 10 < int(mirrored.sum()) < 30
    out = crop_and_flip(images, size, centre)
    torch.testing.assert_close(out[mirrored], images[mirrored].flip(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[~mirrored], images[~mirrored], atol=1e-5, rtol=0)


@given(st.floats(0.01, 1.0), st.booleans(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_windows_lie_inside_the_picture_and_keep_their_area(scale, flip, seed):
    size, centre = crop_parameters(64, scale, flip, gen(seed))
    width, height = size.abs().unbind(1)
    assert bool(((size.abs() + centre.abs()) <= 1 + 1e-6).all())
    assert bool((width * height <= 1 + 1e-6).all()) and bool((size[:, 1] > 0).all())
    if scale <= 0.75:  # wide windows of a large area are cut to the picture
        inside = (width < 1) & (height < 1)
        assert bool((width * height >= scale * (1 - 1e-5))[inside].all())
    ratio = width / height
    assert bool(((ratio > 0.75 - 1e-4) & (ratio < 4 / 3 + 1e-4)).all())
    assert flip or bool((size[:, 0] > 0).all())


def test_settings_do_not_shift_the_stream():
    after = []
    for scale, flip in [(1.0, False), (0.5, True), (0.5, False)]:
        generator = gen(9)
        crop_parameters(7, scale, flip, generator)
        after.append(torch.rand(3, generator=generator).tolist())
    assert after[0] == after[1] == after[2]
    (a, _), (b, _) = (crop_parameters(7, 0.5, flip, gen(9)) for flip in (True, False))
    assert torch.equal(a.abs(), b)  # the same windows, mirrored or not


def test_half_of_all_samples_are_flipped():
    size, _ = crop_parameters(20_000, 0.5, True, gen(4))
    assert abs(float((size[:, 0] < 0).float().mean()) - 0.5) < 0.012  # 3.4 standard errors


def test_every_sample_gets_its_own_crop():
    size, centre = crop_parameters(500, 0.5, True, gen(4))
    assert len(torch.cat([size, centre], 1).unique(dim=0)) == 500


def test_clean_view_normalises_bytes():
    images = torch.randint(0, 256, (4, 5, 5, 3), generator=gen(), dtype=torch.uint8)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.25, 1.0]).view(1, 3, 1, 1)
    out = to_float(images, mean, std)
    assert out.shape == (4, 3, 5, 5) and out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    for c in range(3):
        want = (images[..., c].numpy() / 255 - float(mean[0, c])) / float(std[0, c])
        np.testing.assert_allclose(out[:, c], want, atol=1e-6)
