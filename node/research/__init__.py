"""Cohorts: features of many studies, training and validation of models, and what is written about them."""
