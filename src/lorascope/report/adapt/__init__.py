"""The report of an adapt study: words, tables, figures and one page, from its results alone."""
