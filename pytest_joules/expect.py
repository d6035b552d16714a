"""Expected orderings between results."""
