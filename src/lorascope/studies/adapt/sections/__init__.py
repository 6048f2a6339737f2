"""The sections of the page: sentences, figures and tables."""
