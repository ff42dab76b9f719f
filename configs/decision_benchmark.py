"""Every way of reuse on pairs of real data sets: what each rule's choice costs, and what predicts the gain of reuse.

make data
python -m experiments.download --data-dir data vader glove
python -m experiments.decision_benchmark --config configs/decision_benchmark.py

153 cells, an hour and a half on two cores with other work beside it. Seen: docs/decision.md; the tables are in
docs/results/decision_benchmark, and `--from-tables True` makes the report of them in a minute.
"""

from experiments.config import Augment, Data, Decision, Model, Training, TwoSample
from experiments.regret.settings import Benchmark, Pair

SMALL = Model(width=8)
WORDS = Model(name="mlp", hidden=(64, 64))


def images(name, *classes, **more):
    return Data(name, classes=classes, size=(16, 16), **more)


LOW, HIGH = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")
CLOTHES, OTHERS = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")
ANIMALS, VEHICLES = ("bird", "cat", "deer", "dog", "frog", "horse"), ("airplane", "automobile", "ship", "truck")
HALF, OTHER_HALF = ("airplane", "automobile", "bird", "cat", "deer"), ("dog", "frog", "horse", "ship", "truck")


def pair(name, source, target, **more):
    return Pair(name, source, target, **{"model": SMALL, **more})


FEW, SOME = (50, 200, 1000), (200, 1000, 10_000)

config = Benchmark(
    name="decision_benchmark",
    pairs=(
        pair("MNIST, other rows", images("mnist", part=(0, 2), limit=10_000), images("mnist", part=(1, 2))),
        pair("MNIST 0–4 → 5–9", images("mnist", *LOW, limit=10_000), images("mnist", *HIGH)),
        pair("MNIST → digits", images("mnist", limit=10_000), images("digits", test_fraction=0.4), sizes=FEW),
        pair("digits → MNIST", images("digits"), images("mnist")),
        pair("MNIST → Fashion", images("mnist", limit=10_000), images("fashion_mnist")),
        pair("Fashion → MNIST", images("fashion_mnist", limit=10_000), images("mnist")),
        pair("Fashion 0–4 → 5–9", images("fashion_mnist", *CLOTHES, limit=10_000), images("fashion_mnist", *OTHERS)),
        pair("Fashion → CIFAR half", images("fashion_mnist", limit=10_000), images("cifar10", *OTHER_HALF)),
        pair(
            "CIFAR, other rows",
            images("cifar10", *HALF, part=(0, 2), limit=10_000),
            images("cifar10", *HALF, part=(1, 2)),
        ),
        pair("CIFAR half → half", images("cifar10", *HALF, limit=10_000), images("cifar10", *OTHER_HALF)),
        pair(
            "CIFAR animals → vehicles",
            images("cifar10", *ANIMALS, limit=10_000),
            images("cifar10", *VEHICLES),
            sizes=SOME,
        ),
        pair("movies → Amazon", Data("sentences:movie"), Data("sentences:amazon"), model=WORDS, sizes=FEW),
        pair("movies → New York Times", Data("sentences:movie"), Data("sentences:nyt"), model=WORDS, sizes=FEW),
        pair("tweets → movies", Data("sentences:tweets"), Data("sentences:movie"), model=WORDS, sizes=FEW),
    ),
    sizes=(50, 200, 1000, 10_000),
    epochs=(90, 45, 21, 8),
    batch_sizes=(16, 32, 64, 64),
    pretrain=Training(epochs=8, learning_rates=(3e-3,), patience=3),
    train=Training(learning_rates=(3e-3,), augment=Augment(mixup=0.0)),
    test=TwoSample(max_rows=500, permutations=199),
    decision=Decision(rule="quadrant", margin_from="classes"),
    tables="docs/results/decision_benchmark",
)
