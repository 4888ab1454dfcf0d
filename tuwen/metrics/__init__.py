"""Every score, numpy only: importing one costs no torch."""
