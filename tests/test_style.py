"""The same colour for the same thing, and the two architectures told apart without colour."""

from matplotlib.colors import to_hex

from retention_lib import style


def test_colours_follow_names_everywhere():
    assert style.looks("phantom_resnet18") == style.looks("resnet50")
    assert style.looks("phantom_deit") == style.looks("vit_tiny_patch16_224")
    assert style.looks("octdl") == style.looks("phantom_oct")
    assert style.looks("cub") == style.looks("phantom_birds")
    names = ("resnet18", "deit", "octdl", "cub", "convnext_tiny")
    assert len({style.colour(name) for name in names}) == len(names)
    assert len({style.looks(name)[2] for name in names}) == len(names)


def luminance(colour):
    r, g, b = (int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_the_two_architectures_differ_without_colour():
    a, b = style.looks("resnet18"), style.looks("deit")
    assert a[1] != b[1] and a[2] != b[2]
    assert abs(luminance(a[0]) - luminance(b[0])) > 0.05
