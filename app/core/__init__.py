"""Errors, ids, units and logging. Knows no framework and nothing of the product's layers."""
