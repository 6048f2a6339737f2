"""What two audited adapters did differently: settings, steps and page."""
