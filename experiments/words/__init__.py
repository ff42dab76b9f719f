"""What a study of words to sentiment is made of."""
