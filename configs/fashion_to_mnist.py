"""Fashion-MNIST → MNIST: unrelated, and a small target (1,000 labels).

    python -m experiments.transfer --config configs/fashion_to_mnist.py

Seen before augmentation was carried out (`--decision.augment False`),
with seed 0 on two cores, other work beside it: 3 min. MMD² on the inputs .135, p = .001: different; the first two of
eight layers frozen. 92.2 % against 94.4 % from scratch on 10,000 test images: −2.2 points (95 % interval −2.7 … −1.7), so
reuse is worse.
"""

from experiments.config import Config, Data, Decision, Training

config = Config(
    name="fashion_to_mnist",
    source=Data("fashion_mnist", limit=20_000),
    target=Data("mnist", limit=1_000),
    pretrain=Training(epochs=4, batch_size=64, learning_rates=(1e-3,)),
    decision=Decision(rule="quadrant"),  # as seen
    train=Training(epochs=40, batch_size=32, learning_rates=(3e-3, 1e-3, 3e-4), patience=8),
)
