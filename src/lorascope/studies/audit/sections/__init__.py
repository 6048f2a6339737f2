"""The sections of the audit's page: sentences, figures and tables."""
