"""Density: BMD with its uncertainty, T and Z, the rules of classification, and follow-up."""
