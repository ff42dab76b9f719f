"""Yosinski et al.'s own numbers, for the pale curves behind ours.

Top-1 validation accuracies on halves of ImageNet's classes, re-read from the training logs that the authors published: the
mean of each network's ten best readings. Every AnB+ network there was tested on a B half and every BnB+ network on an A half,
which is why only changes relative to the same half's base network are drawn.

Reference: Yosinski, Clune, Bengio, Lipson, How transferable are features in deep neural networks?, NIPS 2014.
"""

NUM_LAYERS = 8

# Half (its split and which) -> accuracy of the network trained on it from scratch. "dissimilar": A natural, B man-made.
BASE = {
    "0A": 0.61510,
    "0B": 0.63408,
    "1A": 0.62316,
    "1B": 0.62498,
    "2A": 0.62865,
    "2B": 0.62193,
    "3A": 0.62600,
    "3B": 0.62691,
    "dissimilar A": 0.65340,
    "dissimilar B": 0.53724,
}

# (Treatment, half that it was trained on last and tested on) -> accuracy for n = 1 … 7; none where no log was published.
TRANSFER: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("BnB", "0A"): (0.61532, 0.61209, 0.61505, 0.59745, 0.58763, 0.61242, 0.61588),
    ("BnB", "1A"): (0.62955, 0.62552, 0.62133, 0.60596, 0.59387, 0.62003, 0.62296),
    ("BnB", "2A"): (0.63494, 0.63168, 0.62568, 0.61089, 0.59671, 0.62411, 0.62864),
    ("BnB", "3A"): (0.62697, 0.62488, 0.62230, 0.60472, 0.59574, 0.61847, 0.62552),
    ("BnB+", "0A"): (0.61772, 0.62146, 0.62796, 0.62872, 0.62716, 0.62333, 0.62662),
    ("BnB+", "1A"): (None, None, 0.63458, None, 0.63302, 0.63194, None),
    ("AnB", "0A"): (0.61742, 0.61304, 0.60968, 0.59113, 0.56526, 0.57106, 0.53301),
    ("AnB", "0B"): (0.63269, 0.62816, 0.62645, 0.61145, 0.58567, 0.59054, 0.55257),
    ("AnB", "1A"): (0.63024, 0.62643, 0.62192, 0.60120, 0.57987, 0.58097, 0.54121),
    ("AnB", "1B"): (0.62454, 0.62159, 0.61310, 0.59167, 0.57530, 0.57457, 0.53608),
    ("AnB", "2A"): (0.63540, 0.63141, 0.62528, 0.60082, 0.58128, 0.58338, 0.54461),
    ("AnB", "2B"): (0.62482, 0.61838, 0.61585, 0.59737, 0.57208, 0.57946, 0.54147),
    ("AnB", "3A"): (0.62981, 0.62283, 0.62192, 0.60091, 0.58052, 0.58345, 0.54445),
    ("AnB", "3B"): (0.63055, 0.62899, 0.61715, 0.60372, 0.58400, 0.58173, 0.54649),
    ("AnB", "dissimilar A"): (0.65715, 0.65059, 0.62502, 0.58239, 0.52190, 0.48505, 0.39903),
    ("AnB", "dissimilar B"): (0.53924, 0.52142, 0.50075, 0.46163, 0.40980, 0.37425, 0.29137),
    ("AnB+", "0B"): (0.63728, 0.64183, 0.64758, 0.64502, 0.64463, 0.64604, 0.64645),
    ("AnB+", "1B"): (None, 0.62976, 0.63756, 0.63468, None, None, None),
}


def relative(kind: str, treatment: str) -> list[tuple[int, float, int]]:
    """(n, mean relative change to the same half's base network, networks behind it) of each n that was published.

    >>> [(n, round(100 * change, 1), count) for n, change, count in relative("dissimilar", "AnB")][:2]
    [(1, 0.5, 2), (2, -1.7, 2)]
    """
    found: dict[int, list[float]] = {}
    for (name, half), accuracies in TRANSFER.items():
        if name == treatment and half.startswith("dissimilar") == (kind == "dissimilar"):
            for n, accuracy in enumerate(accuracies, start=1):
                if accuracy is not None:
                    found.setdefault(n, []).append(accuracy / BASE[half] - 1)
    return [(n, sum(changes) / len(changes), len(changes)) for n, changes in sorted(found.items())]
