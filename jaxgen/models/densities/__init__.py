"""Densities with parameters of their own: what mixtures and chains are made of; one family a file."""
