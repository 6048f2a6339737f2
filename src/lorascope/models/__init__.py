"""Language models: load them, put adapters on and switch them, name sites and hook them."""
