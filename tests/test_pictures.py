"""Contact sheets and strips show the pictures they are given and frame the marked ones."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import make_images
from simulated import CNN, VIT

from retention_lib import pictures
from retention_lib.style import TRUTH


def test_contact_sheet_places_every_picture_and_frames_the_marked(ax):
    images = np.zeros((5, 8, 8, 3), np.uint8)
    out = pictures.contact_sheet(
        ax, images, [f"class {i}" for i in range(5)], columns=3, marked=np.arange(5) == 2
    )
    assert out is ax and len(ax.images) == 5 and len(ax.patches) == 1
    assert [t.get_text() for t in ax.texts] == [f"class {i}" for i in range(5)]
    tops = [image.get_extent()[3] for image in ax.images]
    assert tops[:3] == [0] * 3 and tops[3] == tops[4] > 8
    with pytest.raises(ValueError, match="titles must be one per image, got 1 for 5"):
        pictures.contact_sheet(ax, images, ["a"])


def gallery_of(images):
    of = images.samples.iloc[[5, 9, 2]]
    table = pd.DataFrame({"forgets": [CNN, CNN, VIT], "keeps": [VIT, VIT, CNN]})
    table["sample_id"] = of["sample_id"].to_numpy()
    table["class"] = [images.classes[c] for c in of["label"]]
    table = table.assign(events=[2.0, 1.5, 1.0], events_keeps=0.0)
    return table.assign(noisy=[False, True, False])


def test_gallery_shows_the_pictures_of_its_samples(ax):
    images = make_images()
    table = gallery_of(images)
    pictures.gallery_strip(ax, images, table)
    shown = [np.asarray(image.get_array()) for image in ax.images]
    for picture, row in zip(shown, (5, 9, 2), strict=True):
        np.testing.assert_array_equal(picture, images.images[row])
    words = [text.get_text() for text in ax.texts]
    assert words[0] == "resnet18 forgets, deit keeps" and words[3] == "deit forgets, resnet18 keeps"
    assert words[1].split("\n")[1:] == ["2.0 | 0.0", table["sample_id"][0][:6]]
    frames = [p for p in ax.patches if p.get_edgecolor() == plt.matplotlib.colors.to_rgba(TRUTH)]
    assert len(frames) == 1


def test_gallery_without_images_or_samples_says_so(ax):
    table = gallery_of(make_images())
    pictures.gallery_strip(ax, None, table)
    assert ax.texts[0].get_text() == "published traces only: no images here"
    pictures.gallery_strip(ax, make_images(), table.iloc[:0])
    assert ax.texts[1].get_text() == "no such samples"
