"""Word vectors from 62, 1,000 and all unlabelled film sentences, and GloVe's, to the mood of film sentences from few labels.

    python -m experiments.download --data-dir data vader glove
    python -m experiments.sentiment --config configs/sentiment.py

Seen with seed 0 on two cores: see docs/sentiment.md.
"""

from experiments.words.settings import Study

config = Study(name="sentiment")
