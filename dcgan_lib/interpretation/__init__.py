"""What the networks have learnt: walks and sums in latent space, forgotten objects, saliency."""
