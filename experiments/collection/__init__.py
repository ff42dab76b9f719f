"""A folder of trained models that many people share: what it fixes, what an entry is, how the nearest is found and reused."""
