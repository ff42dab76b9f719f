"""One half of MNIST → the other half: P = Q, so the test should reject at its level and no more.

    python -m experiments.transfer --config configs/mnist_halves.py

The level over 400 random splits, with one network trained on a disjoint third:

    python -m experiments.null_control --config configs/mnist_halves.py --splits 400

Seen with seed 0 on two cores, other work beside it: 2 min 42 s. MMD² on the inputs −.0001, p = .62: similar; the
convolutional base frozen. 98.5 % against 93.6 % from scratch on 5,000 test images: +4.9 points (95 % interval +4.3 … +5.6).
Null control, 9 min: the deciding test (the inputs) rejected in 17 of 400 splits (500 v 500 rows, 999 permutations), −.7 standard
errors from its level .05; the tests on the layers in 14 to 29, all within 2.1.
"""

from experiments.config import Config, Data, Decision, Training

config = Config(
    name="mnist_halves",
    source=Data("mnist", part=(0, 2), limit=20_000),
    target=Data("mnist", part=(1, 2), limit=1_000),
    pretrain=Training(epochs=4, batch_size=64, learning_rates=(1e-3,)),
    decision=Decision(rule="quadrant"),  # as seen
    train=Training(epochs=40, batch_size=32, learning_rates=(3e-3, 1e-3, 3e-4), patience=8),
)
