"""What a run, a study and a profile are: frozen settings, strict about names, types and values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from retention_lib.checks import check_names, check_types, require

#: Part of every run key; raised when the meaning of a setting or of the trace store changes.
SCHEMA_VERSION = 1

SCHEDULES = ("cosine", "constant")
#: Which samples an epoch shows, by `samplers.Sampler`.
SAMPLERS = (
    "uniform",  # every epoch another random part, without repeats
    "spaced",  # due when the retention that a pilot's decay constants predict is low
    "spaced_shuffled",  # control: the same constants, each on another sample
    "spaced_other_seed",  # control: constants of another seed's pilot
    "leitner",  # boxes: right goes up and waits twice as long, wrong goes down
    "half_life",  # half-life regression, updated each epoch
    "loss_proportional",  # drawn with replacement by the last loss
    "repeat",  # Repeat before Forgetting: delay from loss and strength
    "oracle",  # shows what is planted as needing repetition more often
)
PILOTED = ("spaced", "spaced_shuffled", "spaced_other_seed")  # need a finished uniform run
THRESHOLDED = (*PILOTED, "half_life", "repeat")  # read `recall_threshold`
REPEATING = ("loss_proportional", "oracle")  # may show a sample twice in an epoch
#: Fields that came after the first runs, with their defaults, at which they are left out of a run's
#: stored settings and key: those runs keep both.
_LATER = {"presentations": 1.0, "recall_threshold": 0.5, "pilot_seed": None}
AMP_CHOICES = ("auto", "bf16", "off")
ORIGINS = ("epoch_0", "first_learned", "peak")
SIGNALS = ("raw", "cumulative_mean", "ema", "cumulative_error")
POPULATIONS = ("all", "ever_learned", "ever_forgotten", "not_flat")
LOSSES = ("least_squares", "bernoulli")


@dataclass(frozen=True)
class RunConfig:
    """All that decides one run: fine-tune one architecture on one data set with one seed.

    Raises
    ------
    ValueError
        On a wrong type or an impossible value; the message quotes what came and what was expected.

    Examples
    --------
    >>> RunConfig("phantom_oct", arch="phantom_resnet18", seed=3).order_seed
    32
    """

    dataset: str  # phantom_oct, phantom_birds, octdl, cub or folder:PATH
    arch: str = "resnet18"  # any timm name, or a phantom-size network of `models.PHANTOM_ARCHS`
    seed: int = 0  # model, order and augmentation seeds follow from it by formula
    n_train: int | None = None  # phantoms: how many training images are drawn; None elsewhere
    input_size: int = 224  # [pixel]; what both of the paper's architectures were pretrained at
    weights: str = "default"  # `default`, `none` (random), or a .safetensors file
    # Head only, on cached features: nearly free, but not longer than held-out accuracy rises. After
    # 20 epochs a head has memorised CUB's training images (measured), and little is left to learn.
    warmup_epochs: int = 5
    warmup_lr: float = 1e-3  # AdamW on a linear head needs no tuning within a factor of three
    epochs: int = 30  # fine-tuning epochs: the length of every retention trace
    batch_size: int = 32  # small, so that a thousand images still give dozens of steps an epoch
    lr: float = 1e-4  # AdamW; the usual fine-tuning rate of both architectures
    schedule: str = "cosine"  # or constant: cosine confounds a sample's age with the learning rate
    weight_decay: float = 0.05  # decoupled; DeiT's value, harmless for ResNets
    clip_norm: float = 1.0  # gradient norm limit; transformers spike early without it, 0 = off
    crop_scale: float = 0.6  # smallest share of the area a random resized crop keeps; 1 = no crop
    flip: bool = True  # horizontal flip with probability one half
    sampler: str = "uniform"  # which samples an epoch shows
    presentations: float = 1.0  # share of the training samples shown per epoch, repeats counted
    recall_threshold: float = 0.5  # predicted retention below which a sample is due: the half-life
    pilot_seed: int | None = None  # `spaced_other_seed`: whose uniform run gives the constants
    amp: str = "auto"  # bf16 autocast by the rule in `train.resolve_amp`
    deterministic: bool = False  # CUDA only: deterministic kernels; CPU runs always are

    def __post_init__(self):
        check_types(self)
        require(self, "dataset", self.dataset != "", "a data set's name")
        require(self, "arch", self.arch != "", "a timm model name")
        require(self, "seed", self.seed >= 0, ">= 0")
        require(self, "n_train", self.n_train is None or self.n_train > 0, "> 0 or None")
        require(self, "input_size", self.input_size >= 16, ">= 16 pixels")
        require(self, "epochs", self.epochs >= 1, ">= 1")
        require(self, "warmup_epochs", self.warmup_epochs >= 0, ">= 0")
        require(self, "batch_size", self.batch_size >= 1, ">= 1")
        for name in ("lr", "warmup_lr"):
            require(self, name, 0 < getattr(self, name) < 10, "between 0 and 10")
        for name in ("weight_decay", "clip_norm"):
            require(self, name, 0 <= getattr(self, name) < 1e6, ">= 0")
        require(self, "crop_scale", 0 < self.crop_scale <= 1, "in (0, 1]")
        require(self, "schedule", self.schedule in SCHEDULES, f"one of {SCHEDULES}")
        require(self, "sampler", self.sampler in SAMPLERS, f"one of {SAMPLERS}")
        require(self, "amp", self.amp in AMP_CHOICES, f"one of {AMP_CHOICES}")
        self._check_sampling()

    def _check_sampling(self):
        """Refuse settings that the sampler does not read: equal runs must have equal keys."""
        name, other = self.sampler, self.sampler == "spaced_other_seed"
        # A schedule that shows every sample in every epoch has nothing to choose.
        most = "(0, 1]" if name in ("uniform", *REPEATING) else f"(0, 1) for the sampler {name!r}"
        inside = 0 < self.presentations < 1 or (self.presentations == 1 and most.endswith("]"))
        require(self, "presentations", inside, f"in {most}")
        require(self, "recall_threshold", 0 < self.recall_threshold < 1, "between 0 and 1")
        read = name in THRESHOLDED or self.recall_threshold == _LATER["recall_threshold"]
        require(self, "recall_threshold", read, f"left alone unless the sampler is {THRESHOLDED}")
        if other:
            seed = self.pilot_seed
            good = seed is not None and seed >= 0 and seed != self.seed
            require(self, "pilot_seed", good, f"a seed other than the run's own ({self.seed})")
        else:
            require(self, "pilot_seed", self.pilot_seed is None, f"None for the sampler {name!r}")

    # Three disjoint streams: changing how many numbers one consumes never shifts another.
    @property
    def model_seed(self) -> int:
        """Seed of the new head, of dropout and of stochastic depth: 10 x seed + 1."""
        return 10 * self.seed + 1

    @property
    def order_seed(self) -> int:
        """Seed of the order in which samples are shown: 10 x seed + 2."""
        return 10 * self.seed + 2

    @property
    def augment_seed(self) -> int:
        """Seed of crops and flips: 10 x seed + 3."""
        return 10 * self.seed + 3

    def to_dict(self) -> dict:
        """Plain fields, as stored in `config.json`."""
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if k not in _LATER or v != _LATER[k]}

    def pilot(self) -> RunConfig | None:
        """The uniform run whose decay constants the sampler reads; None if it reads none.

        Examples
        --------
        >>> RunConfig("cub", sampler="spaced", presentations=0.5, seed=7).pilot().sampler
        'uniform'
        """
        if self.sampler not in PILOTED:
            return None
        seed = self.seed if self.pilot_seed is None else self.pilot_seed
        unread = {name: _LATER[name] for name in ("recall_threshold", "pilot_seed")}
        return self.replace(sampler="uniform", seed=seed, **unread)

    @classmethod
    def from_dict(cls, fields: dict) -> RunConfig:
        """Build from plain fields; unknown names are errors that suggest the nearest known one."""
        check_names(fields, [f.name for f in dataclasses.fields(cls)], "RunConfig")
        return cls(**fields)

    def replace(self, **changes) -> RunConfig:
        """A copy with some fields changed, checked like any other."""
        return RunConfig.from_dict({**self.to_dict(), **changes})

    def key(self, identity: str = "") -> str:
        """Name of the run's directory, the same in every process and Python version.

        Parameters
        ----------
        identity : str
            The data set's identity (`ImageSet.identity`). A folder's path is not part of the key,
            what lies in it is.
        """
        fields = {**self.to_dict(), "dataset": self.dataset.partition(":")[0]}
        text = json.dumps([SCHEMA_VERSION, identity, fields], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
        arch = self.arch.replace("/", "_")
        return f"{fields['dataset']}-{arch}-s{self.seed}-{digest}"


@dataclass(frozen=True)
class Study:
    """A grid of runs: every data set with every architecture, every arm and every seed.

    An arm is a sampler. `spaced_other_seed` takes its constants from the next seed of the grid.
    """

    base: dict  # RunConfig fields that all runs share
    datasets: tuple[str, ...]
    archs: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: dict = field(default_factory=dict)  # fields for one dataset or one architecture
    arms: tuple[str, ...] = ()  # samplers; empty: the one of `base`

    def __post_init__(self):
        check_types(self)
        known = {*self.datasets, *self.archs}
        check_names(self.overrides, sorted(known), "Study.overrides")
        own = {"dataset", "arch", "seed"} | ({"sampler", "pilot_seed"} if self.arms else set())
        for fields in (self.base, *self.overrides.values()):
            if grid := own & set(fields):
                raise ValueError(f"{sorted(grid)} are set by the study's grid, got {fields!r}")
        for name in ("datasets", "archs", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"Study.{name} must be non-empty without repeats, got {values!r}")
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"Study.arms must be without repeats, got {self.arms!r}")
        if "spaced_other_seed" in self.arms and len(self.seeds) < 2:
            raise ValueError(f"spaced_other_seed needs two seeds or more, got {self.seeds!r}")
        self.configs()  # impossible settings are reported here rather than hours later

    def configs(self) -> list[RunConfig]:
        """The runs, data set by data set, seeds innermost, arms just outside them."""
        return [
            RunConfig.from_dict(
                {
                    **self.base,
                    **self.overrides.get(dataset, {}),
                    **self.overrides.get(arch, {}),
                    "dataset": dataset,
                    "arch": arch,
                    "seed": seed,
                    **self._of_arm(arm, seed),
                }
            )
            for dataset in self.datasets
            for arch in self.archs
            for arm in self.arms or (None,)
            for seed in self.seeds
        ]

    def _of_arm(self, arm: str | None, seed: int) -> dict:
        """What an arm sets; a threshold in `base` is for those that read it."""
        if arm is None:
            return {}
        fields = {"sampler": arm}
        if arm not in THRESHOLDED:
            fields["recall_threshold"] = _LATER["recall_threshold"]
        if arm == "spaced_other_seed":
            fields["pilot_seed"] = self.seeds[(self.seeds.index(seed) + 1) % len(self.seeds)]
        return fields

    def replace(self, **changes) -> Study:
        """A copy with some fields changed; `base` fields are merged, not replaced."""
        check_names(changes, [f.name for f in dataclasses.fields(self)], "Study.replace")
        changes["base"] = {**self.base, **changes.get("base", {})}
        named = {*changes.get("datasets", self.datasets), *changes.get("archs", self.archs)}
        kept = {k: v for k, v in self.overrides.items() if k in named}
        return dataclasses.replace(self, **{"overrides": kept, **changes})


@dataclass(frozen=True)
class Profile:
    """A study at one scale, with what the analysis needs to know about it."""

    name: str
    study: Study
    draws: int  # bootstrap and permutation draws
    is_phantom: bool  # phantoms check the instrument and are never judged against the paper
    sampling: Study | None = None  # arms x seeds of notebook 06, with fewer presentations

    def __post_init__(self):
        check_types(self)
        require(self, "draws", self.draws > 0, "> 0")
        arms = self.sampling is None or self.sampling.arms[:1] == ("uniform",)
        require(self, "sampling", arms, "a study whose first arm is 'uniform'")


@dataclass(frozen=True)
class TraceConvention:
    """What a retention trace is: where it starts, what it shows, whose it is; and how it is fitted.

    `loss` is what a decay curve minimises, a field because a convention is only complete with it:
    squared residuals, or minus the log-likelihood of 0/1 data (raw signal only).
    """

    origin: str = "epoch_0"  # or first_learned (the learned epoch), or peak
    signal: str = "raw"  # raw correctness, or a smoothed version of it
    population: str = "all"  # which samples are fitted
    view: str = "clean"
    loss: str = "least_squares"

    def __post_init__(self):
        require(self, "origin", self.origin in ORIGINS, f"one of {ORIGINS}")
        require(self, "signal", self.signal in SIGNALS, f"one of {SIGNALS}")
        require(self, "population", self.population in POPULATIONS, f"one of {POPULATIONS}")
        require(self, "view", self.view in ("clean", "online"), "one of ('clean', 'online')")
        fits = LOSSES if self.signal == "raw" else LOSSES[:1]
        require(self, "loss", self.loss in fits, f"one of {fits} for the signal {self.signal!r}")


# Fixed on 2026-11-21, before any run with this code. A pilot with other code (128 px, 12 epochs,
# seeds 0-2) had been seen; verdicts on real data therefore use seeds from 10 up.
#: The plainest reading of the paper; carries the verdicts: exp(-lambda t) fitted by least squares
#: to raw correctness from epoch 0 on, of all samples, R^2 of a constant trace being undefined.
LITERAL = TraceConvention()
#: Carries our own claims. Nothing can be forgotten before it is learned, so traces start there;
#: right or wrong is a 0/1 outcome, so its likelihood is Bernoulli; a sample never forgotten says
#: only that lambda is small, so it is censored.
RETENTION = TraceConvention(origin="first_learned", population="ever_learned", loss="bernoulli")
#: Share of samples called "most forgotten".
TOP_SHARE = 0.10
#: The score that ranks them unless another is named: forgetting events, never-learned highest.
PRIMARY_SCORE = "forgetting_score"
#: The five tests of one Holm family, one per finding: (finding, quantity) as in `verdicts.PAPER`,
#: and the null hypothesis. A data set is a study of its own, with a family of its own; every other
#: p-value is exploratory. Each null is what a reader would hold against the finding.
HEADLINE_TESTS = {
    # Chance alone would be too weak a null: shared classes make top sets overlap.
    ("architecture_overlap", "jaccard"): "no more overlap than shared classes give",
    # The finding is a difference; both R^2 are far from 0 for reasons that are not forgetting.
    ("decay_structure", "r2_difference"): "mean R^2 does not depend on the architecture",
    # The paper's claim is this null. Within class, or stable class rates would reject it.
    ("seed_stability", "spearman"): "ranks of two seeds are unrelated within classes",
    # W over seeds and architectures: consistency, the claim, of all classes' ranks at once.
    ("class_forgetting", "kendall_w"): "ranks of the classes are unrelated between runs",
    # Loss and decay of one run, as in the paper. Classes differ in both, which says little.
    ("early_loss", "spearman"): "early loss and decay constant are unrelated within classes",
}
#: Difference in held-out accuracy that counts as none: one point. Retraining with another seed
#: moves accuracy by about that much (5,794 held-out images have a binomial error of 0.5 points at
#: 85 %), and papers call a smaller gain a tie.
EQUIVALENCE_MARGIN = 0.01

_PHANTOM = Study(
    base={
        "n_train": 600,  # twelve runs take seven minutes on two slow cores
        "input_size": 64,
        "warmup_epochs": 20,  # small networks' features need it
        "epochs": 12,
        "lr": 1e-3,  # short runs of small networks: a third of it leaves clean labels unlearned
        "crop_scale": 0.9,  # at 64 px a smaller crop cuts the marks that tell species apart
    },
    datasets=("phantom_oct", "phantom_birds"),
    archs=("phantom_resnet18", "phantom_deit"),
    seeds=(0, 1, 2),
    overrides={
        "phantom_deit": {"lr": 7e-4},  # forgets over 60 % of the birds at 1e-3
        "phantom_oct": {"warmup_epochs": 4},  # few classes: more, and little is left to learn
    },
)

#: Arms of the phantom study, and all that need no planted truth. A schedule can only choose where
#: an epoch does not show all: half of the samples, in twice as many epochs. People's schedulers aim
#: at 90 % recall; at half, most samples of a short run would never come to be due.
_SHOWN = {"presentations": 0.5, "recall_threshold": 0.9}
#: Four of the eight, so that a fresh machine trains them in a few minutes.
_ARMS = ("uniform", "spaced", "spaced_shuffled", "leitner")
#: The arm that all others are compared with; its runs are their pilots.
REFERENCE = "uniform"
ALL_ARMS = tuple(name for name in SAMPLERS if name != "oracle")
_SAMPLING = Study(
    base={**_PHANTOM.base, **_SHOWN, "n_train": 400, "epochs": 8, "warmup_epochs": 4},
    datasets=("phantom_oct",),  # one, and the one with rare classes
    archs=("phantom_resnet18",),
    seeds=(0, 1, 2),
    arms=_ARMS,
)

PROFILES = {
    "smoke": Profile(
        "smoke",
        _PHANTOM.replace(
            base={"n_train": 72, "input_size": 32, "epochs": 4, "warmup_epochs": 5}, seeds=(0, 1)
        ),
        draws=200,
        is_phantom=True,
        sampling=_SAMPLING.replace(
            base={"n_train": 72, "input_size": 32, "epochs": 4, "warmup_epochs": 5},
            seeds=(0, 1),
            arms=("uniform", "spaced"),
        ),
    ),
    "phantom": Profile("phantom", _PHANTOM, draws=1000, is_phantom=True, sampling=_SAMPLING),
    "real": Profile(
        "real",
        Study(
            base={},
            datasets=("octdl", "cub"),
            archs=("resnet18", "deit_small_patch16_224"),
            seeds=(10, 11, 12, 13, 14),
            overrides={"cub": {"warmup_epochs": 3}},  # 78 % right at 128 px; after 5 it is 91 %
        ),
        draws=2000,
        is_phantom=False,
        sampling=Study(
            base={**_SHOWN, "epochs": 60},  # as many steps as the study's 30 epochs
            datasets=("octdl", "cub"),
            archs=("resnet18", "deit_small_patch16_224"),
            seeds=(10, 11, 12, 13, 14),
            overrides={"cub": {"warmup_epochs": 3}},
            arms=ALL_ARMS,
        ),
    ),
}


def profile(name: str) -> Profile:
    """Look up a profile by name; a ValueError lists the known ones."""
    check_names([name], list(PROFILES), "profile")
    return PROFILES[name]
