"""Tests of strawberry.ablate."""
