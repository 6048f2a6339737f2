"""Learn a behaviour as relations between latents: the steps of `lorascope latent`."""
