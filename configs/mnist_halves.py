"""One half of MNIST → the other half: P = Q, so the test should reject at its level and no more.

    python -m experiments.transfer --config configs/mnist_halves.py

The level over 400 random splits, with one network trained on a disjoint third:

    python -m experiments.null_control --config configs/mnist_halves.py --splits 400
"""

from experiments.config import Config, Data, Training

config = Config(
    name="mnist_halves",
    source=Data("mnist", part=(0, 2), limit=20_000),
    target=Data("mnist", part=(1, 2), limit=1_000),
    pretrain=Training(epochs=4, batch_size=64, learning_rates=(1e-3,)),
    train=Training(epochs=40, batch_size=32, learning_rates=(3e-3, 1e-3, 3e-4), patience=8),
)
