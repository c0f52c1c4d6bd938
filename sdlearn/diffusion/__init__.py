"""Noise in, noise out: schedules, samplers and guidance. Nothing in here depends on a network."""
