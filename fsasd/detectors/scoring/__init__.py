"""What scores are computed of: nearest neighbours, Gaussian mixtures, banks of the two domains."""
