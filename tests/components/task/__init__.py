"""Tests of strawberry.components.task."""
