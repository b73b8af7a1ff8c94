"""What to train under a budget: contributions, and the best scheme that fits."""
