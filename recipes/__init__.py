"""Recipes: whole trainings that start from nothing but package registries."""
