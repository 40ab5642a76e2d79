"""How fast it is: ratios to peers, measured in one run."""
