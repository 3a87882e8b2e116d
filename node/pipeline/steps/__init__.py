"""The work of each step, as functions whose parameters and results say all that they use."""
