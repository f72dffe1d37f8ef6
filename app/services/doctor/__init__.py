"""What this machine lacks for Slipway, and the cure for each fault.

`facts.gather` reads the machine once; `checks.examine` judges the facts without touching anything,
so that each fault can be tested from a value.
"""
