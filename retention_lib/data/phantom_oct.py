"""A drawn phantom of OCTDL: seven classes of retinal cross-sections, each with its planted truth.

Classes and their 56:1 proportions are OCTDL's (Kulyabin et al., Scientific Data 2024). An eye is a
handful of surfaces (height as a function of x); a disease bends them and adds what its name
promises, in the amount given by `LESIONS` times the severity of the image. Everything else, from
the tilt to the vessel shadows, has the same distribution in every class.

Every random number of a picture is hashed from its `planted_seed`, whose upper bits belong to the
patient. `oct_scene` holds the drawing itself.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from retention_lib.data.imageset import sample_ids
from retention_lib.data.oct_scene import Chance, draw_scene

CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")
PLANTED = ("occlusion", "contrast", "pose", "seed", "severity")  # what a picture is drawn from
OCTDL_COUNTS = (1231, 147, 155, 332, 22, 101, 76)  # images per class in OCTDL, of 2,064

# The knobs of difficulty.
SEVERITY_RANGE = (0.28, 1.00)  # of a patient; below about 0.3 a lesion is hard to see at 64 px
SEVERITY_SHAPE = (1.4, 1.3)  # beta distribution over that range; a larger first number is easier
SEVERITY_SPREAD = 0.10  # standard deviation between images of one patient
NOISE_SHARE = 0.05  # of each split's labels are swapped (rounded to whole pairs)
OCCLUDED_SHARE = 0.20  # of the images have a shadow or a blink
CONTRAST_RANGE = (0.55, 1.05)  # signal strength
SPECKLE = 0.30  # relative amplitude of the speckle
DISTRACTOR_CHANCE = 0.20  # of each mild finding of `DISTRACTORS`, in every class alike
MIN_TRAIN, MIN_VAL = 4, 2  # images per class; two patients each is the least that can be split

#: lesion -> class -> (strength at full severity, share of patients that have it)
LESIONS = {
    "drusen": {"AMD": (1.0, 1.0)},  # bumps under the pigment epithelium
    "atrophy": {"AMD": (0.9, 0.25)},  # thin outer layers, bright choroid below
    "fluid": {"AMD": (0.7, 0.35), "DME": (0.4, 0.2), "RVO": (0.9, 0.8)},  # under the retina
    "cysts": {"AMD": (0.4, 0.1), "DME": (1.0, 1.0), "RVO": (1.0, 1.0), "VID": (0.4, 0.3)},
    "thickening": {"DME": (0.8, 1.0), "ERM": (0.4, 0.7), "RVO": (1.0, 1.0), "RAO": (0.35, 1.0)},
    "one_side": {"RVO": (1.0, 1.0)},  # moves cysts and thickening to one half
    "exudates": {"DME": (1.0, 1.0), "RVO": (0.4, 0.3)},  # bright dots
    "membrane": {"ERM": (1.0, 1.0), "VID": (0.4, 0.2)},  # bright line on the surface
    "wrinkles": {"ERM": (1.0, 1.0)},  # of the inner surface, with a flattened pit
    "glow": {"RAO": (1.0, 1.0)},  # bright inner layers with a shadow below
    "hyaloid": {"VID": (1.0, 1.0), "DME": (0.5, 0.15)},  # line that leaves the retina at the pit
    "traction": {"VID": (1.0, 0.55)},  # pit pulled up into a peak
    "hole": {"VID": (1.0, 0.45)},  # macular hole, in the patients without traction
}
#: Mild findings any eye may have: lesion -> greatest strength. `loose`: a hyaloid off the pit.
DISTRACTORS = {"drusen": 0.25, "cysts": 0.2, "membrane": 0.3, "thickening": 0.25, "loose": 0.4}

STRENGTH, CHANCE = np.moveaxis(  # each (class, lesion)
    np.array([[of.get(c, (0.0, 0.0)) for of in LESIONS.values()] for c in CLASSES]), 2, 0
)


def class_distances() -> np.ndarray:
    """True distance between classes: Euclidean, over their mean lesion strengths.

    Returns
    -------
    ndarray of float64, (class, class)
        Symmetric, zero on the diagonal; in units of one lesion at full strength.

    Examples
    --------
    >>> class_distances()[CLASSES.index("DME"), [CLASSES.index("RVO"), 0]].round(1)
    array([1.5, 1.9])
    """
    mean = STRENGTH * CHANCE
    return np.sqrt(((mean[:, None] - mean[None]) ** 2).sum(-1))


def sample_table(n: int, seed: int = 0) -> pd.DataFrame:
    """List `n` training and `n // 4` held-out images with their planted truth; draws nothing.

    Counts per class follow `OCTDL_COUNTS` by largest remainder, but no class gets fewer than
    `MIN_TRAIN` and `MIN_VAL` images (the largest class gives them up). A patient has 1-6 images,
    all in one split. Label noise exchanges the labels of two images of similar classes, at most one
    image per patient, so that counts by observed and by true label are the same.

    Parameters
    ----------
    n : int
        Training images, at least 56.
    seed : int
        Another seed is another data set.

    Returns
    -------
    DataFrame
        Ordered by split, then path. `label` and the folder in `path` are the observed class.
        `planted_pose` (-1..1) is the tilt, `planted_contrast` the signal strength,
        `planted_occlusion` (0..1) the strength of a shadow or blink, `planted_severity` (0..1) that
        of the disease, 0 in healthy eyes. `file_bytes` is 0: there is no file.

    Raises
    ------
    ValueError
        If `n` is too small for two patients per class on each side.

    Examples
    --------
    >>> table = sample_table(1200)
    >>> (table["split"] == "train").sum(), table["planted_noisy"].mean().round(2)
    (np.int64(1200), np.float64(0.05))
    """
    least = max(len(CLASSES) * MIN_TRAIN, 4 * len(CLASSES) * MIN_VAL)
    if n < least:
        raise ValueError(f"n must be at least {least} (two patients per class and side), got {n}")
    rng = np.random.default_rng(seed)
    parts, first = [], 0
    for split, total, minimum in (("train", n, MIN_TRAIN), ("val", n // 4, MIN_VAL)):
        part = _images_of_patients(_class_counts(total, minimum), first, rng)
        part["label"] = _swap_labels(part["true"].to_numpy(), part["patient"].to_numpy(), rng)
        parts.append(part.assign(split=split))
        first += part["patient"].nunique()
    rows = pd.concat(parts, ignore_index=True)
    folder = pd.Series(np.array(CLASSES)[rows["label"]])
    patient = rows["patient"].astype(str).str.zfill(max(4, len(str(first))))
    path = folder + "/" + folder.str.lower() + "_" + patient + "_" + rows["image"].astype(str)
    table = pd.DataFrame({"sample_id": sample_ids(path + ".png"), "path": path + ".png"})
    table[["label", "split"]] = rows[["label", "split"]]
    table = table.assign(group="patient_" + patient, file_bytes=0)
    table["planted_true_label"] = rows["true"]
    table["planted_noisy"] = rows["true"] != rows["label"]
    for name in PLANTED:
        table["planted_" + name] = rows[name]
    return table.sort_values(["split", "path"], ignore_index=True)


def _class_counts(total: int, minimum: int) -> np.ndarray:
    """Images per class: OCTDL's proportions by largest remainder, raised to a minimum."""
    quota = total * np.array(OCTDL_COUNTS) / sum(OCTDL_COUNTS)
    counts = np.floor(quota).astype(int)
    counts[np.argsort(counts - quota, kind="stable")[: total - counts.sum()]] += 1
    counts = np.maximum(counts, minimum)
    while counts.sum() > total:
        counts[counts.argmax()] -= 1
    return counts


def _images_of_patients(counts: np.ndarray, first: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row per image: patient, image number, true class, seed and nuisances."""
    true, patient, number = [], [], []
    for label, count in enumerate(counts):
        sizes = rng.choice(np.arange(1, 7), p=(0.35, 0.25, 0.16, 0.12, 0.07, 0.05), size=count)
        sizes[0] = min(sizes[0], count - 1)  # so that there is a second patient
        sizes = np.diff(np.minimum(np.cumsum(sizes), count), prepend=0)
        sizes = sizes[sizes > 0]
        true.append(np.full(count, label))
        patient.append(np.repeat(first + np.arange(len(sizes)), sizes))
        number.append(np.concatenate([np.arange(1, s + 1) for s in sizes]))
        first += len(sizes)
    true, patient, number = (np.concatenate(p) for p in (true, patient, number))
    n, eye = len(true), patient - patient[0]
    eyes = eye[-1] + 1
    low, high = SEVERITY_RANGE
    base = low + (high - low) * rng.beta(*SEVERITY_SHAPE, eyes)
    severity = np.clip(base[eye] + SEVERITY_SPREAD * rng.standard_normal(n), low / 2, 1)
    occluded = rng.random(n) < OCCLUDED_SHARE
    return pd.DataFrame({"patient": patient, "image": number, "true": true}).assign(
        severity=np.where(true == CLASSES.index("NO"), 0.0, severity),
        seed=rng.integers(2**40, size=eyes)[eye] * 16 + number,  # upper bits: the patient
        occlusion=np.where(occluded, rng.uniform(0.3, 1, n), 0.0),
        contrast=rng.uniform(*CONTRAST_RANGE, n),
        pose=np.clip(rng.normal(0, 0.4, eyes)[eye] + rng.normal(0, 0.2, n), -1, 1),
    )


def _swap_labels(true: np.ndarray, patient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange labels between similar classes, in at most half of a class's patients."""
    order = rng.permutation(len(true))
    one_each = order[np.unique(patient[order], return_index=True)[1]]  # a random image per patient
    of_class = (rng.permutation(one_each[true[one_each] == c]) for c in range(len(CLASSES)))
    free = [list(images[: len(images) // 2]) for images in of_class]
    size = np.array([len(images) for images in free])
    label, upper = true.copy(), np.triu(np.exp(-class_distances()), 1)
    for _ in range(round(NOISE_SHARE * len(true) / 2)):
        weight = (upper * np.outer(size, size)).ravel()
        a, b = divmod(rng.choice(weight.size, p=weight / weight.sum()), len(CLASSES))
        i, j = free[a].pop(), free[b].pop()
        label[i], label[j] = b, a
        size[[a, b]] -= 1
    return label


def draw(table: pd.DataFrame, size: int = 64, batch: int = 256) -> np.ndarray:
    """Draw the rows of a `sample_table`.

    Parameters
    ----------
    table : DataFrame
        Needs the `planted_` columns only; a picture depends on its own row alone. Change one (say
        `planted_severity`) for a counterfactual picture of the same eye.
    size : int
        Height and width [pixel], at least 16; the scene does not depend on it.
    batch : int
        Images drawn at once, at most (fewer at larger sizes): bounds the memory, changes no byte.

    Returns
    -------
    ndarray of uint8, (sample, size, size, 3)

    Raises
    ------
    ValueError
        If the size is below 16, the batch below 1, or a planted column is missing.

    Examples
    --------
    >>> draw(sample_table(60).head(3), size=32).shape
    (3, 32, 32, 3)
    """
    names = ("true_label", *PLANTED)
    missing = ["planted_" + n for n in names if "planted_" + n not in table]
    if missing:
        raise ValueError(f"draw needs the columns {missing}; the table has {list(table.columns)}")
    if size < 16 or batch < 1:
        raise ValueError(f"size must be at least 16 and batch at least 1, got {size} and {batch}")
    columns = {n: torch.tensor(np.ascontiguousarray(table["planted_" + n])) for n in names}
    out = np.empty((len(table), size, size, 3), np.uint8)
    step = min(batch, max(1, 64 * 64**2 // size**2))  # what stays in the cache is drawn fastest
    for i in range(0, len(table), step):
        row = {n: c[i : i + step] for n, c in columns.items()}
        eye, shot = Chance(row["seed"] >> 4), Chance(row["seed"])  # of the patient, of the image
        found = _findings(row["true_label"], row["severity"].float()[:, None], eye, shot)
        view = {n: row[n].float() for n in ("occlusion", "contrast", "pose")}
        out[i : i + step] = draw_scene(size, found, row["seed"], eye, shot, SPECKLE, **view)
    return out


def _findings(label: Tensor, severity: Tensor, eye: Chance, shot: Chance) -> dict[str, Tensor]:
    """How strong each lesion is in each image: lesion -> (image, 1)."""
    strength, chance = (torch.as_tensor(a, dtype=torch.float32) for a in (STRENGTH, CHANCE))
    dice = {name: eye() for name in LESIONS}
    dice["hole"] = 1 - dice["traction"]  # an eye has the one or the other
    found = {}
    for k, name in enumerate(LESIONS):
        present = dice[name] < chance[label, k, None]
        found[name] = strength[label, k, None] * severity * present
    for name, greatest in DISTRACTORS.items():
        mild = shot(0, greatest) * (shot() < DISTRACTOR_CHANCE)
        found[name] = torch.maximum(found.get(name, torch.zeros(1)), mild)
    return found
