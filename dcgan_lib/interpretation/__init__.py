"""What the networks have learnt: directions in latent space that change one thing."""
