"""ImageNet's EfficientNet-Lite0 → CIFAR-10 at 96 × 96 pixels, with 400, 2,000 and 10,000 labels; a size for two cores.

    python -m experiments.download --data-dir data cifar10 efficientnet_lite0
    python -m experiments.strategies --config configs/efficientnet_to_cifar10.py

Seen with seed 0 on two cores beside other work: 59 min. Of 2,000 test images right with 400, 2,000 and 10,000 labels: base frozen
73.0, 78.5, 82.4 %; all fine-tuned 67.9, 78.8, 86.5 %; from scratch 17.8, 30.6, 42.1 %. Intervals, and what each rule would
choose: docs/strategies.md.
"""

from experiments.config import Config, Data, Decision, Model, Training
from experiments.strategy.settings import Strategies

FINE = Training(
    batch_size=32,
    learning_rates=(2e-3,),
    schedule="cosine",
    warmup_epochs=0.5,
    patience=100,
    validation_fraction=0.1,
)

config = Strategies(
    name="efficientnet_to_cifar10",
    run=Config(
        source=None,
        target=Data("cifar10", size=(96, 96), test_limit=2_000),
        model=Model("efficientnet_lite0", weights="imagenet"),
        decision=Decision(pretrained_rate=0.1),
        checkpoint_seconds=60.0,
    ),
    labels=(400, 2_000, 10_000),
    epochs=(10, 4, 2),
    probe=Training(epochs=100, batch_size=64, learning_rates=(1e-3, 3e-4), patience=10, validation_fraction=0.1),
    finetune=FINE,
    scratch=FINE,
)
