"""Sentences: reading them, cutting them into words, and numbers for the words."""
