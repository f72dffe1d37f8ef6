"""Set-up of the machine and the checkout for `./run` and `./test`.

Runs before any dependency exists: standard library only, and nothing from the rest of `app`
(import-linter holds that). Each part is idempotent and says what it does.
"""
