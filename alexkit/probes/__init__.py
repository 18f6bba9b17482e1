"""Linear classifiers on arrays of features."""
