"""The page of a latent study: sentences and figures."""
