"""Scaling ladders: trained runs of growing size, and what they say of sizes that nobody trained."""
