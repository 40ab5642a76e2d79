"""Methods in the tools of the neighbours."""
