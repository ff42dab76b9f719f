"""Digits 0–4 → digits 5–9, embedded in scikit-learn: no network access needed.

    python -m experiments.transfer --config configs/quickstart.py

Seen with seed 0 on two cores: 1 min of processor time. MMD² on the inputs .039, p = .001: different. The rule `evidence`, the
default, fine-tunes everything, augmented: 95.1 % against 97.3 % from scratch (augmented likewise) on 224 test images:
−2.2 points (95 % interval −5.9 … +1.1), not told apart. With `--decision.rule quadrant` (the first two of eight layers frozen):
88.8 %, −8.5 points (−13.1 … −4.8).
"""

from experiments.config import Config, Data, Training

training = Training(epochs=30, batch_size=32, learning_rates=(3e-3, 1e-3))

config = Config(
    name="quickstart",
    source=Data("digits", classes=("0", "1", "2", "3", "4")),
    target=Data("digits", classes=("5", "6", "7", "8", "9"), limit=100),
    pretrain=training,
    train=training,
)
