"""Finds the application's gateway, and its providers in the environment."""
