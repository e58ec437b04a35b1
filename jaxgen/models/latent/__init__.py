"""Densities made of densities: mixtures and products."""
