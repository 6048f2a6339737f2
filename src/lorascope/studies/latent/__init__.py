"""Learning a behaviour as relations between latents: settings, stages, plan and page."""
