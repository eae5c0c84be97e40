"""A mock examination: closed questions with numbers drawn from a seed, and answers that the package computes."""
