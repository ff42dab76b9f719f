"""What a comparison of strategies is made of."""
