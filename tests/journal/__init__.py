"""The ledger: what is written, in which order, and what its readers see."""
