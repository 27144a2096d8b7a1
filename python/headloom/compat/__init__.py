"""Weights of other libraries under headloom's names."""
