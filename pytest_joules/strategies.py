"""Hypothesis strategies over points."""
