"""The table of claims: what the paper says, where, and the rule by which a measurement is judged.

Ids that begin with ``ours.`` are this edition's own figures (the quality of its generators and
probes); their "paper value" is a dash and their rule is a target that we set ourselves. Rules were
fixed before the measurements.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.verdicts import AtLeast, AtMost, Criteria, Quoted, Rule, Within


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Describe one claim of the paper, or one figure of our own.

    Parameters
    ----------
    id : str
        Lower-case words joined by dots and dashes.
    section : str
        Where the paper makes it; "-" for our own figures.
    claim : str
        The claim in our words.
    paper : str
        The paper's value, or how the paper supports it ("figure", "stated", "argued").
    paper_flag : str
        "V" read in the source, "I" inferred, "R" recalled and not checked, "-" not from the paper.
    chapters : tuple of int
        Chapters of the book that treat it.
    rule : Rule
        Turns a measurement into a verdict.
    home_set : str, optional
        The image set of the paper's number; on another set the numeric rule does not apply, and the
        measurement is judged by named checks.
    """

    id: str
    section: str
    claim: str
    paper: str
    paper_flag: str = "V"
    chapters: tuple[int, ...]
    rule: Rule
    home_set: str | None = None

    @property
    def is_ours(self) -> bool:
        """Tell our own figures from the paper's claims."""
        return self.id.startswith("ours.")

    def rule_on(self, set_name: str | None) -> Rule:
        """Return the rule for a measurement on an image set (None: the paper's own)."""
        if set_name is None or self.home_set is None or isinstance(self.rule, Quoted):
            return self.rule
        return self.rule if set_name == self.home_set else Criteria()


def _paper(id: str, section: str, chapters: tuple[int, ...], paper: str, claim: str, rule: Rule | None = None) -> Claim:
    return Claim(id=id, section=section, chapters=chapters, paper=paper, claim=claim, rule=rule or Criteria())


def _table(id: str, section: str, chapter: int, paper: str, claim: str, rule: Rule, home: str, flag: str) -> Claim:
    chapters = (chapter,)
    return Claim(
        id=id, section=section, chapters=chapters, paper=paper, claim=claim, rule=rule, home_set=home, paper_flag=flag
    )


def _table1(row: str, paper: str, claim: str, rule: Rule | None = None) -> Claim:
    section, flag = ("-", "-") if paper == "-" else ("5.1, Table 1", "V")
    return _table(f"table1.{row}", section, 7, paper, claim, rule or Criteria(), "cifar10", flag)


def _table2(row: str, paper: str, claim: str, rule: Rule) -> Claim:
    return _table(f"table2.{row}", "5.2, Table 2", 8, paper, claim, rule, "svhn", "V")


def _table3(row: str, paper: str, claim: str, rule: Rule | None = None) -> Claim:
    flag = "-" if paper == "-" else "R"
    return _table(f"table3.{row}", "8.1, Table 3", 13, paper, claim, rule or Criteria(), "mnist", flag)


def _own(id: str, chapter: int, claim: str, rule: Rule | None = None, section: str = "-") -> Claim:
    return Claim(
        id=id, section=section, chapters=(chapter,), paper="-", paper_flag="-", claim=claim, rule=rule or Criteria()
    )


# Numeric rules read (target, slack, margin, unit); the unit is % unless given.

_GUIDELINES = (
    _paper("arch.stable", "1, 3", (2,), "most settings", "the guidelines train stably across a range of sets"),
    _paper("arch.strided", "3", (2,), "used", "strided and fractionally-strided convolutions replace pooling"),
    _paper("arch.gap", "3", (2,), "stated", "global average pooling is more stable and slower to converge"),
    _paper("arch.fc", "3", (2,), "used", "no hidden fully-connected layers are needed"),
    _paper("arch.bn", "3", (2,), "stated", "batch norm stabilises and keeps G from collapsing to one point"),
    _paper(
        "arch.bn-everywhere", "3", (2,), "stated", "batch norm on G's output and D's input makes training oscillate"
    ),
    _paper("arch.tanh", "3", (2,), "stated", "a bounded output saturates and covers the colour space sooner"),
    _paper("arch.leaky", "3", (2,), "stated", "LeakyReLU in D works well, more so at higher resolution"),
    _paper("train.beta1", "4", (2, 3), "stated", "Adam's beta1 of 0.9 oscillates, 0.5 is stable"),
    _paper("train.lr", "4", (2, 3), "stated", "a learning rate of 0.001 is too high, 0.0002 is good"),
    _paper("train.filter-collapse", "7", (3,), "stated", "long training sometimes collapses filters to one mode"),
)

_SAMPLES = (
    _paper("bedrooms.one-epoch", "4.1, Fig. 2", (4,), "figure", "samples are plausible after one pass"),
    _paper("bedrooms.five-epochs", "4.1, Fig. 3", (4,), "figure", "after five, repeated noise textures: it underfits"),
    _paper("bedrooms.memorisation", "4.1, 6", (4,), "argued", "samples are not copies of training images"),
    _paper(
        "dedup.false-positives",
        "4.1.1",
        (4,),
        "< 1 %",
        "pairs with equal hash that are not duplicates, in %",
        AtMost(1, 0, 1),
    ),
    _paper("dedup.recall", "4.1.1", (4,), "about 275,000 of 3 M removed", "the hash finds most near-duplicates"),
    _paper("faces.crops", "4.2", (5,), "about 350,000 of 3 M", "a detector crops faces from web photographs"),
    _paper("faces.samples", "4.2, Fig. 10", (5,), "figure", "samples look like faces"),
    _paper("imagenet.samples", "4.3, Fig. 11", (6,), "figure", "samples at 32x32 resemble natural images"),
)

_TABLES = (
    _table1("kmeans1.full", "80.6 %", "one-layer K-means, accuracy", Within(80.6, 2, 3)),
    _table1("kmeans1.400", "63.7 +- 0.7 %", "one-layer K-means, 400 labels a class, accuracy", Within(63.7, 2, 3)),
    _table1("dcgan.full", "82.8 %", "DCGAN features + L2-SVM, accuracy", AtLeast(82.8, 2, 5)),
    _table1("dcgan.400", "73.8 +- 0.4 %", "DCGAN features + L2-SVM, 400 labels a class, accuracy", AtLeast(73.8, 2, 5)),
    _table1(
        "kmeans3",
        "82.0 % · 70.7 +- 0.7 % with 400 a class",
        "three-layer K-means with learned receptive fields, accuracy",
        Quoted(),
    ),
    _table1("viewinvariant", "81.9 % · 72.6 +- 0.7 % with 400 a class", "view-invariant K-means, accuracy", Quoted()),
    _table1("exemplar", "84.3 % · 77.4 +- 0.2 % with 400 a class", "Exemplar CNN, accuracy", Quoted()),
    _table1("random", "-", "control: features of a discriminator with random weights, accuracy"),
    _table1("random-stored", "-", "control: the same, batch norm's statistics left at 0 and 1, accuracy"),
    _table1("pixels", "-", "control: raw pixels, accuracy"),
    _table1("dcgan-cifar", "-", "control: discriminator trained on CIFAR-10 without labels, accuracy"),
    _table2("dcgan", "22.48 %", "DCGAN features + L2-SVM, 1,000 labels, test error", AtMost(22.48, 2, 8)),
    _table2(
        "supervised", "28.87 % (validation)", "the same network, supervised, 1,000 labels, error", Within(28.87, 3, 5)
    ),
    _table2(
        "quoted",
        "KNN 77.93 · TSVM 66.55 · M1+KNN 65.63 · M1+TSVM 54.33 · M1+M2 36.02 · SWWAE 27.83 · with dropout 23.56 %",
        "test error of other methods, 1,000 labels",
        Quoted(),
    ),
    _table3("real.50k", "3.1 %", "1-NN on real data, test error", Within(3.1, 0.3, 0.7)),
    _table3("infimnist.50k", "-", "1-NN on deformed digits, test error; as many real digits do better"),
    _table3("infimnist.10m", "2.6 %", "1-NN on deformed digits, test error", Within(2.6, 0.3, 0.7)),
    _table3("gan.50k", "6.28 %", "1-NN on a plain GAN's digits, test error", Within(6.28, 1, 2)),
    _table3("gan.10m", "5.65 %", "1-NN on a plain GAN's digits, test error", Within(5.65, 1, 2)),
    _table3("dcgan.50k", "2.98 %", "1-NN on DCGAN's digits, test error", AtMost(2.98, 0.3, 1)),
    _table3("dcgan.10m", "1.48 %", "1-NN on DCGAN's digits, test error", AtMost(1.48, 0.3, 1)),
    _table3("align", "1.4 %", "1-NN on AlignMNIST, test error", Quoted()),
    _paper("table3.bn-affine", "8.1", (13,), "stated", "removing batch norm's scale and bias is better for both"),
)

_INSIDE = (
    _paper("walk.smooth", "6.1, Fig. 4", (9,), "figure", "a latent walk is smooth, and every point is plausible"),
    _paper("walk.semantic", "6.1", (9,), "figure", "objects appear and disappear along the way"),
    _paper("neighbours.fooled", "6", (4, 9), "stated", "small image transforms fool nearest neighbours"),
    _paper(
        "saliency.trained-vs-random", "6.2, Fig. 5", (10,), "figure", "trained features see objects, random ones not"
    ),
    _paper("forget.object", "6.3.1, Fig. 6", (11,), "figure; 200 maps", "dropping maps removes most windows"),
    _paper("forget.rest", "6.3.1", (11,), "figure", "the rest of the scene stays"),
    _paper("arithmetic.smile", "6.3.2, Fig. 7", (12,), "figure", "smiling woman - woman + man = smiling man"),
    _paper(
        "arithmetic.glasses", "6.3.2, Fig. 7", (12,), "figure", "man with glasses - man + woman = woman with glasses"
    ),
    _paper("arithmetic.three-vs-one", "6.3.2", (12,), "stated", "one exemplar is unstable, the mean of three stable"),
    _paper("arithmetic.pixels", "6.3.2, Fig. 7", (12,), "figure", "the same sums in pixel space only overlay images"),
    _paper("turn.linear", "6.3.2, Fig. 8", (12,), "figure", "pose moves linearly along the turn vector"),
    _own(
        "residual.plain",
        14,
        "the residual GAN against the plain one, equal parameters and time",
        section="after the paper",
    ),
)

_DIGITS = ("mnist", "mnist-conditional", "mnist-paper", "mnist-gan")

_GENERATORS = (
    *(
        _own(
            f"ours.{name}.recognised",
            13,
            f"{name}: generated digits that the probe names with confidence over 0.9, in %",
            AtLeast(90, 0, 10),
        )
        for name in _DIGITS
    ),
    *(
        _own(
            f"ours.{name}.entropy",
            13,
            f"{name}: how evenly generated digits cover the ten classes: entropy / log 10",
            AtLeast(0.98, 0, 0.05, ""),
        )
        for name in _DIGITS
    ),
    *(
        _own(f"ours.{name}.kid", chapter, f"KID of the {name} generator against held-out images")
        for name, chapter in {
            **dict.fromkeys(_DIGITS, 13),
            "street-digits": 8,
            "faces": 5,
            "bedrooms": 4,
            "rooms": 4,
            "portraits": 5,
            "imagenet": 6,
        }.items()
    ),
    *(
        _own(
            f"ours.{name}.memorised",
            chapter,
            f"{name} samples closer to a training image than to a held-out one, in %",
            AtMost(50, 5, 5),
        )
        for name, chapter in {
            **dict.fromkeys(_DIGITS, 13),
            "faces": 5,
            "bedrooms": 4,
            "rooms": 4,
            "portraits": 5,
        }.items()
    ),
)

_PROBES = (
    _own("ours.probe.mnist", 13, "digit classifier, test accuracy in %", AtLeast(99, 0, 1)),
    _own("ours.probe.street-digits", 8, "drawn-digit classifier, test accuracy in %", AtLeast(95, 0, 5)),
    _own("ours.probe.faces.female", 5, "faces probe: the set's own sex label, test accuracy in %", AtLeast(85, 0, 5)),
    _own("ours.probe.faces.age", 5, "faces probe: the age label, R2 on test images", AtLeast(0.5, 0, 0.2, "")),
    _own(
        "ours.probe.smiles",
        12,
        "smile probe: its set's own label, smiling or neutral, accuracy in %",
        AtLeast(85, 0, 5),
    ),
    *(
        _own(
            f"ours.probe.{name}.presence",
            chapter,
            f"{name} probe: lowest accuracy over its yes-or-no labels, in %",
            AtLeast(97, 0, 2),
        )
        for name, chapter in {"rooms": 4, "portraits": 5}.items()
    ),
    *(
        _own(
            f"ours.probe.{name}.measures",
            chapter,
            f"{name} probe: lowest R2 over its continuous labels",
            AtLeast(0.95, 0, 0.05, ""),
        )
        for name, chapter in {"rooms": 4, "portraits": 5}.items()
    ),
)

CLAIMS: dict[str, Claim] = {
    claim.id: claim for claim in _GUIDELINES + _SAMPLES + _TABLES + _INSIDE + _GENERATORS + _PROBES
}


def split_id(full_id: str) -> tuple[str, str | None]:
    """Split ``ID`` or ``ID:SET`` into the claim's id and the image set's name.

    Raises
    ------
    UserError
        If the id is not in the table, or the set's name is not made of a-z, 0-9 and single dashes.
    """
    id, colon, set_name = full_id.partition(":")
    if id not in CLAIMS:
        near = get_close_matches(id, CLAIMS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see dcgan_lib.evaluation.claims"
        raise UserError(f"{id!r} is not the id of a claim: {hint}")
    if not colon:
        return id, None
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", set_name):
        raise UserError(f"a set's name in {full_id!r} must be a-z, 0-9 and single dashes, such as street-digits")
    return id, None if set_name == CLAIMS[id].home_set else set_name
