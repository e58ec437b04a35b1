"""Models of sequences: Markov chains and what they emit."""
