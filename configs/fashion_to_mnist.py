"""Fashion-MNIST → MNIST: unrelated, and a small target (1,000 labels).

python -m experiments.transfer --config configs/fashion_to_mnist.py
"""

from experiments.config import Config, Data, Training

config = Config(
    name="fashion_to_mnist",
    source=Data("fashion_mnist", limit=20_000),
    target=Data("mnist", limit=1_000),
    pretrain=Training(epochs=4, batch_size=64, learning_rates=(1e-3,)),
    train=Training(epochs=40, batch_size=32, learning_rates=(3e-3, 1e-3, 3e-4), patience=8),
)
