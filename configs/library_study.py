"""Ten models of class subsets of MNIST, Fashion-MNIST and CIFAR-10, ranked for twelve targets of 200 labels.

python -m experiments.library_study --config configs/library_study.py
"""

from experiments.collection.trial import Named, Study
from experiments.config import Data, Model, Training


def subset(name: str, classes: str, *, part: int, **others: int) -> Data:
    """Some classes of a data set at 16×16 pixels: part 0 of its rows is for sources, part 1 for targets."""
    return Data(name, classes=tuple(classes), part=(part, 2), size=(16, 16), **others)


def source(name: str, classes: str, rows: int) -> Data:
    return subset(name, classes, part=0, limit=rows, test_limit=1000)


def target(name: str, classes: str) -> Data:
    return subset(name, classes, part=1, test_limit=1000)


config = Study(
    entries=(
        Named("mnist_0-4", source("mnist", "01234", 6000)),
        Named("mnist_5-9", source("mnist", "56789", 3000)),
        Named("mnist_even", source("mnist", "02468", 1500)),
        Named("mnist_0-1", source("mnist", "01", 4000)),
        Named("fashion_tops", source("fashion_mnist", "02346", 6000)),
        Named("fashion_others", source("fashion_mnist", "15789", 3000)),
        Named("fashion_shoes", source("fashion_mnist", "579", 1500)),
        Named("cifar_animals", source("cifar10", "234567", 8000)),
        Named("cifar_vehicles", source("cifar10", "0189", 4000)),
        Named("cifar_even", source("cifar10", "02468", 2000)),
    ),
    targets=(
        Named("mnist_0-4", target("mnist", "01234")),
        Named("mnist_5-9", target("mnist", "56789")),
        Named("mnist_odd", target("mnist", "13579")),
        Named("digits_0-4", target("digits", "01234")),
        Named("digits_5-9", target("digits", "56789")),
        Named("digits_odd", target("digits", "13579")),
        Named("fashion_tops", target("fashion_mnist", "02346")),
        Named("fashion_others", target("fashion_mnist", "15789")),
        Named("fashion_odd", target("fashion_mnist", "13579")),
        Named("cifar_0-4", target("cifar10", "01234")),
        Named("cifar_5-9", target("cifar10", "56789")),
        Named("cifar_odd", target("cifar10", "13579")),
    ),
    model=Model("cnn8", width=8),
    pretrain=Training(epochs=6, batch_size=64, learning_rates=(3e-3,)),
    train=Training(epochs=40, batch_size=32, learning_rates=(3e-3,), patience=13),
)
