"""Networks: the DCGAN pair and what it is sampled with."""
