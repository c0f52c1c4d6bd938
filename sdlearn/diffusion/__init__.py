"""Noise in, noise out: schedules, samplers and guidance. Nothing in here knows a network."""
