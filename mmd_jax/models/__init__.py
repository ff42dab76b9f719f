"""Networks as ordered, named layers. flax is used in this package only."""
