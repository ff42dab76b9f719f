"""From (Similarity, sizes) to a Plan, by named rules; each rule is a plain table.

A rule never sees a test result. It sees what is known of P = Q, in four words: similar, different, undecided, unknown.
Where it is not known to be similar, the row for dissimilar data applies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmd_jax.models.layered import Network
from mmd_jax.two_sample.verdict import Verdict
from mmd_jax.types import Plan, Similarity, Stage, TwoSampleResult

REGIMES = ("linear_probe", "finetune_top", "finetune_all", "lp_ft", "from_scratch")


class Choice(NamedTuple):
    """One cell of a rule's table.

    Attributes:
      regime: one of REGIMES.
      why: the sentence that the plan gives as its reason.
      frozen_share: finetune_top only: the share of the base's layers that are frozen, rounded to a whole layer.
      augment: whether the inputs should be augmented.
      pretrained_rate: learning rate of pretrained layers as a share of that of new ones; none: the caller's.
    """

    regime: str
    why: str
    frozen_share: float = 1.0
    augment: bool = False
    pretrained_rate: float | None = None


# The patent on reusing neural-network models, step 4. It is silent between "small" and "large": there we train the new
# classifier first and then everything (similar; Kumar et al. 2022), or follow the row for large targets (dissimilar), since
# 5,000 rows are enough for a low learning rate to be safe and too few to throw the pretrained weights away.
PATENT = {
    ("small", "similar"): Choice(
        "linear_probe",
        "The target is small and similar: fine-tuning may overfit and high-level features should be alike, so the network is "
        "a fixed feature extractor and only a linear classifier is trained.",
    ),
    ("small", "different"): Choice(
        "from_scratch",
        "The target is small and not known to be similar: fine-tuning is not advised, so the network is trained from scratch.",
    ),
    ("medium", "similar"): Choice(
        "lp_ft",
        "The target is similar, and of a size between the patent's small and large: train the classifier first, then all layers.",
    ),
    ("medium", "different"): Choice(
        "finetune_all",
        "The target is not known to be similar, and of a size between the patent's small and large: fine-tune the whole "
        "network from the pretrained weights, as for a large one.",
    ),
    ("large", "similar"): Choice("finetune_all", "The target is large and similar: fine-tune the whole network."),
    ("large", "different"): Choice(
        "finetune_all",
        "The target is large and not known to be similar: it could be trained anew, but starting from the pretrained "
        "weights still helps in practice, so the whole network is fine-tuned.",
    ),
}

# The size × similarity map of the article on pretrained models. "Deeper than for large and similar" is all that it says of
# the third cell; the shares are ours: of five convolutions three are frozen where it says top layers, two where it says fewer.
QUADRANT = {
    ("large", "different"): Choice(
        "finetune_all",
        "The target is large and not known to be similar: train the whole model from the pretrained weights.",
    ),
    ("large", "similar"): Choice(
        "finetune_top", "The target is large and similar: train the classifier and the top layers.", frozen_share=0.6
    ),
    ("small", "different"): Choice(
        "finetune_top",
        "The target is small and not known to be similar: freeze fewer layers than for similar data, and augment.",
        frozen_share=0.4,
        augment=True,
    ),
    ("small", "similar"): Choice(
        "finetune_top",
        "The target is small and similar: freeze the convolutional base and train only the classifier.",
        frozen_share=1.0,
    ),
}

# What the decision benchmark found to give away least of all policies that are the same for every target, and what no rule of
# size and similarity beat beyond noise on pairs of data sets that it had not seen (docs/decision.md; a test holds it to the
# tables in docs/results/). A published network of which no source is known failed at that rate there, and LP-FT did not.
EVIDENCE = {
    "measured": Choice(
        "finetune_all",
        "Over many pairs of data sets, fine-tuning the whole network at the rate of new layers, augmented, gave away least, "
        "whatever the target's size and similarity.",
        augment=True,
        pretrained_rate=1.0,
    ),
    "unknown": Choice(
        "lp_ft",
        "Nothing is known of the source, as of a published network: train the classifier first and then all layers, at a small "
        "rate.",
    ),
}

# The rules that ask for size and similarity.
MAPS = {"patent": PATENT, "quadrant": QUADRANT}
RULES = (*MAPS, "evidence")


def similarity(result: TwoSampleResult, *, representation: str, alpha: float, m: int, n: int) -> Similarity:
    """Reads one test: not rejected at alpha is similar, rejected is different.

    "Not rejected" at a small sample mostly says that the sample is small, so the evidence names the sizes.

    Args:
      result: of one unbatched test.
      representation: where the test looked, "inputs" or a layer's name.
      alpha: the level of the test.
      m: rows of the source in the test.
      n: rows of the target in the test.

    Returns:
      A Similarity; "undecided" where the p-value is not a number.

    Example:
      >>> import numpy as np
      >>> from mmd_jax.types import TwoSampleResult
      >>> result = TwoSampleResult(*map(np.asarray, (0.2, 0.001, 0.01, True, 0.5, [1.0], 999, [0.0, 0.004])))
      >>> similarity(result, representation="inputs", alpha=0.05, m=100, n=80).kind
      'different'
    """
    pvalue = float(result.pvalue)
    where = "the inputs" if representation == "inputs" else f"layer {representation}"
    if np.isnan(pvalue):
        return Similarity("undecided", f"The test on {where} gave no p-value.")
    numbers = (
        f"on {where}, {m} source rows against {n} target rows: MMD² = {float(result.statistic):.4g}, p = {pvalue:.3g}"
    )
    if bool(result.reject):
        return Similarity("different", f"P = Q is rejected at level {alpha:g} ({numbers}).")
    return Similarity("similar", f"P = Q is not rejected at level {alpha:g} ({numbers}).")


def similarity_of_verdict(verdict: Verdict, *, representation: str, m: int, n: int) -> Similarity:
    """Reads a verdict: equivalent and "different, but by less than matters" are similar, whatever the sample size.

    Args:
      verdict: of `mmd_jax.two_sample.verdict`.
      representation: where it looked, "inputs" or a layer's name.
      m: rows of the source.
      n: rows of the target.

    Returns:
      A Similarity; "undecided", for which rules take their row for dissimilar data, where the rows are too few to say.
    """
    kind = {"equivalent": "similar", "different_but_small": "similar"}.get(verdict.kind, verdict.kind)
    where = "On the inputs" if representation == "inputs" else f"On layer {representation}"
    return Similarity(kind, f"{where}, {m} source rows against {n} target rows: {verdict.sentence}")


def decide(
    rule: str,
    similarity: Similarity,
    network: Network,
    *,
    num_rows: int,
    num_classes: int,
    small: int = 5_000,
    large: int = 10_000,
    small_per_class: int = 1_000,
    pretrained_rate: float = 0.1,
    num_frozen: int | None = None,
    frozen: Sequence[str] = (),
    layer_decay: float = 1.0,
    augment: bool | None = None,
) -> Plan:
    """Chooses the regime by a named rule and spells it out for this network.

    Args:
      rule: "patent", "quadrant", or "evidence" (the same for any size and similarity that is known).
      similarity: what is known of P = Q; all but "similar" takes the row for dissimilar data.
      network: whose layers the plan names.
      num_rows: labelled training rows of the target.
      num_classes: classes of the target.
      small, large: the patent's sizes, in rows: fewer than `small` is small, more than `large` is large.
      small_per_class: the quadrant's size: fewer rows a class than this is small.
      pretrained_rate: learning rate of pretrained layers as a share of that of new ones; "evidence" has its own.
      num_frozen: overrides the number of leading layers that "finetune_top" freezes, and …
      frozen: … their names, in whatever place.
      layer_decay: as in `stages_of`.
      augment: overrides whether the inputs are augmented.

    Returns:
      A Plan whose reason is one sentence.

    Raises:
      ValueError: on an unknown rule or kind of similarity, thresholds out of order, or a num_frozen outside 0 … L − 1.
    """
    if similarity.kind not in ("similar", "different", "undecided", "unknown"):
        raise ValueError(f"similarity.kind is {similarity.kind!r}; expected similar, different, undecided or unknown")
    kind = "similar" if similarity.kind == "similar" else "different"
    if rule == "patent":
        if not 0 < small <= large:
            raise ValueError(f"small = {small} and large = {large}; expected 0 < small <= large")
        size = "small" if num_rows < small else "large" if num_rows > large else "medium"
        choice, counted = PATENT[size, kind], f"{num_rows} training rows"
    elif rule == "quadrant":
        size = "small" if num_rows < small_per_class * num_classes else "large"
        choice, counted = QUADRANT[size, kind], f"{num_rows / num_classes:.0f} training rows a class"
    elif rule == "evidence":
        known = "unknown" if similarity.kind == "unknown" else "measured"
        choice, counted = EVIDENCE[known], f"{num_rows} training rows"
    else:
        raise ValueError(f"unknown rule {rule!r}; there are {', '.join(RULES)}")
    why = f"{choice.why[:-1]} ({counted})."
    if num_frozen is not None or frozen:
        used = "the user " + (
            f"freezes {', '.join(frozen)}" if frozen else f"set the number of frozen layers to {num_frozen}"
        )
        why = f"{why[:-1]}; {used}" + ("." if choice.regime == "finetune_top" else ", which this regime does not use.")
    elif choice.regime == "finetune_top":
        # "Top layers" are some of the base's: one at least is left to train, however small the base.
        most = network.num_base if choice.frozen_share == 1 else max(network.num_base - 1, 0)
        num_frozen = min(round(choice.frozen_share * network.num_base), most)
    stages = stages_of(
        choice.regime,
        network.layers,
        num_frozen=num_frozen or 0,
        frozen=frozen,
        pretrained_rate=pretrained_rate if choice.pretrained_rate is None else choice.pretrained_rate,
        layer_decay=layer_decay,
        augment=choice.augment if augment is None else augment,
    )
    return Plan(rule, choice.regime, stages, why)


def stages_of(
    regime: str,
    layers: Sequence[str],
    *,
    num_frozen: int = 0,
    frozen: Sequence[str] = (),
    pretrained_rate: float = 0.1,
    layer_decay: float = 1.0,
    augment: bool = False,
) -> tuple[Stage, ...]:
    """Spells a regime out for a network: the last layer is new, the others are pretrained.

    Args:
      regime: one of REGIMES.
      layers: names in order, [L].
      num_frozen: for finetune_top, how many leading layers are frozen, 0 … L − 1; or …
      frozen: … for finetune_top, the names of the frozen ones, in whatever place; none: `num_frozen` counts.
      pretrained_rate: multiplier of the learning rate of pretrained layers that are trained; new layers take 1.
      layer_decay: each pretrained layer's multiplier is this times that of the one above it (discriminative rates: Howard
        and Ruder, ACL 2018, take 1 / 2.6); 1 for one rate.
      augment: carried into every stage.

    Returns:
      The stages of a Plan: two for lp_ft, one for every other regime.

    Raises:
      ValueError: on an unknown regime, a num_frozen outside 0 … L − 1, frozen names that are no layers or the last one, a rate
        that is not positive, or a decay outside (0, 1].

    Example:
      >>> [stage] = stages_of("finetune_top", ("conv", "fc", "head"), num_frozen=1)
      >>> stage.frozen, stage.trained, stage.reinitialised
      (('conv',), (('fc', 0.1), ('head', 1.0)), ('head',))
    """
    layers = tuple(layers)
    if regime not in REGIMES:
        raise ValueError(f"unknown regime {regime!r}; there are {', '.join(REGIMES)}")
    if not 0 <= num_frozen <= len(layers) - 1:
        raise ValueError(
            f"num_frozen = {num_frozen}, but the network has {len(layers)} layers and its last is always new: "
            f"expected 0 … {len(layers) - 1}"
        )
    if unknown := [name for name in frozen if name not in layers[:-1]]:
        raise ValueError(
            f"frozen names {unknown[0]!r}; expected some of {', '.join(layers[:-1])} (the last, {layers[-1]}, is always new)"
        )
    if not pretrained_rate > 0:
        raise ValueError(
            f"pretrained_rate = {pretrained_rate}; expected a positive share of the learning rate of new layers"
        )
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"layer_decay = {layer_decay}; expected above 0, at most 1 (one rate for all pretrained layers)"
        )
    # The last layer is the newest; the one below it is the first that is pretrained.
    below = {name: pretrained_rate * layer_decay**depth for depth, name in enumerate(reversed(layers[:-1]))}

    def stage(still: Sequence[str], new: tuple[str, ...]) -> Stage:
        rates = ((name, 1.0 if name in (*new, layers[-1]) else below[name]) for name in layers if name not in still)
        return Stage(tuple(name for name in layers if name in still), tuple(rates), new, augment)

    head = layers[-1:]
    return {
        "linear_probe": (stage(layers[:-1], head),),
        "finetune_top": (stage(tuple(frozen) or layers[:num_frozen], head),),
        "finetune_all": (stage((), head),),
        # The second stage goes on with the classifier that the first has trained, at the rate of pretrained layers too: its
        # weights are no longer new.
        "lp_ft": (
            stage(layers[:-1], head),
            Stage((), tuple((name, below.get(name, pretrained_rate)) for name in layers), (), augment),
        ),
        "from_scratch": (stage((), layers),),
    }[regime]
